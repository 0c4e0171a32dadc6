"""The provenance of a run."""

import time

import torch

from project.observe.provenance import command_started, device_name


def test_the_command_s_start_time_is_before_now_and_not_long_ago():
    assert time.time() - 3600 < command_started() < time.time()


def test_a_device_has_a_name():
    assert device_name(torch.device("cpu"))
