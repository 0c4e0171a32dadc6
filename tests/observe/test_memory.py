"""Memory of this process."""

import os
from pathlib import Path

import torch

from project.observe.memory import peak_memory_bytes, proportional_set_bytes


def test_peak_memory_is_at_least_what_is_resident_now():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert peak_memory_bytes(torch.device("cpu")) >= 0.95 * resident


def test_peak_memory_does_not_fall():
    before = peak_memory_bytes(torch.device("cpu"))
    block = torch.ones(2**24)
    assert peak_memory_bytes(torch.device("cpu")) >= before
    del block


def test_the_proportional_set_size_is_no_larger_than_peak_memory():
    assert 0 < proportional_set_bytes() <= peak_memory_bytes(torch.device("cpu"))
