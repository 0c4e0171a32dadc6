"""A rank that waits for its own disk keeps no other waiting in a collective, whose timeout would end the run."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist

from project.spec.layout import ParallelLayout
from project.state.checkpoint import writer
from project.state.checkpoint.partial import PartialFolder
from project.state.checkpoint.reader import Checkpoint
from tests.harness.case import SMALL, Case
from tests.harness.saving import run

CASE = Case(ParallelLayout(pp=2, microbatches=2), replace(SMALL, num_layers=2), steps=2)
DISK_S = 4.0
COLLECTIVES = ("all_reduce", "all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list")
SLOW = {
    "a share's tensors": (1, PartialFolder, "write_tensors"),
    "rank 0's share": (0, PartialFolder, "write_tensors"),
    "the manifest": (0, PartialFolder, "seal"),
    "what dead runs left": (0, writer, "remove_leftovers"),
    "checksums, at resume": (1, Checkpoint, "verify"),
    "tensors, at resume": (1, Checkpoint, "read_chunk"),
}


class LongestWait:
    """Seconds of the longest collective in the main thread."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watched(self, plain: Callable) -> Callable:
        def collective(*args: Any, **kwargs: Any) -> Any:
            assert threading.current_thread() is threading.main_thread(), "two threads would use one group"
            began = time.monotonic()
            try:
                return plain(*args, **kwargs)
            finally:
                self.seconds = max(self.seconds, time.monotonic() - began)

        return collective


def slowly(plain: Callable) -> Callable:
    """The call, which takes longer the first time."""
    left = [DISK_S]

    def call(*args: Any, **kwargs: Any) -> Any:
        time.sleep(left.pop() if left else 0)
        return plain(*args, **kwargs)

    return call


def longest_wait(rank: int, world_size: int, folder: Path, slow: str | None, resume: Path | None) -> float:
    waits = LongestWait()
    on, owner, name = SLOW[slow] if slow else (-1, None, "")
    with mock.patch.multiple(dist, **{each: waits.watched(getattr(dist, each)) for each in COLLECTIVES}):
        if rank != on:
            run(rank, world_size, CASE, folder, resume, tensors=False)
        else:
            with mock.patch.object(owner, name, slowly(getattr(owner, name))):
                run(rank, world_size, CASE, folder, resume, tensors=False)
    return waits.seconds


@pytest.mark.parametrize("slow", SLOW)
def test_one_rank_s_slow_disk_holds_no_other_in_a_collective(ranks, tmp_path: Path, slow: str) -> None:
    resume = None
    if "at resume" in slow:
        ranks.run(2, longest_wait, tmp_path / "before", None, None)
        resume = tmp_path / "before" / "step=2.ckpt"
    began = time.monotonic()
    waited = ranks.run(2, longest_wait, tmp_path / "run", slow, resume)
    assert time.monotonic() - began > DISK_S, "the disk was not slow"
    assert max(waited) < 0.6 * DISK_S
    Checkpoint(tmp_path / "run" / "step=2.ckpt" if resume is None else resume).verify()
