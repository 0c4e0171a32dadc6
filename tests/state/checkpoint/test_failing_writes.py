"""A checkpoint that cannot be written is an error on all ranks, soon, and leaves the older ones as they were."""

import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
from filelock import FileLock

from project.spec.layout import ParallelLayout
from project.state.checkpoint.last import named
from project.state.checkpoint.manifest import CheckpointError
from project.state.checkpoint.reader import Checkpoint
from tests.harness.case import SMALL, Case
from tests.harness.saving import run

CASE = Case(ParallelLayout(pp=2, microbatches=2), replace(SMALL, num_layers=2), steps=8)


class Trouble(L.Callback):
    """Runs something on one rank at the start of the fourth batch: the save after the second is whole by then."""

    def __init__(self, rank: int, action: Callable[[], None]) -> None:
        self.rank, self.action = rank, action

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 3:
            trainer.strategy.checkpoints.writer.drain()
            if trainer.global_rank == self.rank:
                self.action()


def failing(rank: int, world_size: int, folder: Path, action: Callable[[], None] | None, asynchronous: bool) -> tuple:
    """The error, and the number of steps before it."""
    counter = Counter(asynchronous)
    trouble = (Trouble(1, action),) if action else ()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        run(rank, world_size, CASE, folder, callbacks=(counter, *trouble))
    except CheckpointError as error:
        return str(error), counter.steps
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return "", counter.steps


class Counter(L.Callback):
    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous, self.steps = asynchronous, 0

    def on_fit_start(self, trainer: L.Trainer, module: Any) -> None:
        trainer.strategy.checkpoints.writer.asynchronous = self.asynchronous

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        self.steps = trainer.global_step


def no_large_files() -> None:
    """Makes the system refuse to let a file grow, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own takes the rights to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def whole(folder: Path) -> list[str]:
    for path in named(folder):
        Checkpoint(path).verify()
    assert not list(folder.glob(".*.partial-*"))
    return sorted(path.name for path in named(folder))


@pytest.mark.parametrize("asynchronous", [True, False], ids=["in the background", "at once"])
def test_one_rank_s_failure_to_write_a_checkpoint_is_every_rank_s_error(
    ranks, tmp_path: Path, asynchronous: bool
) -> None:
    answers = ranks.run(2, failing, tmp_path, no_large_files, asynchronous)
    assert answers[0] == answers[1]
    said, steps = answers[0]
    assert "-00001.safetensors: File too large; free some space; older checkpoints are whole" in said
    assert 4 <= steps <= 6 if asynchronous else steps == 4
    assert whole(tmp_path) == ["step=2.ckpt"]


def test_a_full_disk_leaves_the_earlier_checkpoints_whole(ranks, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-o", "size=1200k"):
        (said, _), other = ranks.run(2, failing, tmp_path / "small", None, True)
        assert other[0] == said
        assert re.search(r"\.(safetensors|json): No space left on device; free some space; older", said)
        assert "step=2.ckpt" in whole(tmp_path / "small")


def test_a_checkpoint_folder_that_cannot_be_written_is_an_error(ranks, tmp_path: Path) -> None:
    with mounted(tmp_path / "fixed", "-o", "ro"):
        for said, steps in ranks.run(2, failing, tmp_path / "fixed", None, True):
            assert "Read-only file system; make it writable, or name another folder" in said
            assert str(tmp_path / "fixed") in said
            assert steps <= 2


def test_a_run_that_saves_into_another_run_s_folder_is_refused(ranks, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"):
        for said, _ in ranks.run(2, failing, tmp_path, None, True):
            assert f"{tmp_path}: another run writes its checkpoints here; give each run a folder of its own" in said
    assert os.listdir(tmp_path) == [".lock"]
