"""CUDA's allocation history; without a GPU, by the calls that are made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from project.callbacks.memory_snapshot import MemorySnapshot


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda **options: made.append(options))
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda path: made.append(path))
    return made


def trainer(device: str, step: int = 0) -> Any:
    strategy = SimpleNamespace(root_device=SimpleNamespace(type=device))
    return SimpleNamespace(strategy=strategy, global_step=step, global_rank=3)


def test_a_memory_snapshot_of_the_first_steps_is_written_once(calls: list[Any], tmp_path: Path) -> None:
    callback: Any = MemorySnapshot(str(tmp_path), steps=2)
    callback.on_fit_start(trainer("cuda"), None)
    for step in (1, 2, 3):
        callback.on_train_batch_end(trainer("cuda", step), None, None, None, step - 1)
    callback.on_train_end(trainer("cuda", 3), None)
    assert calls == [{"max_entries": 200_000}, str(tmp_path / "memory/rank_3.pickle"), {"enabled": None}]


def test_a_run_that_fails_leaves_a_memory_snapshot(calls: list[Any], tmp_path: Path) -> None:
    callback: Any = MemorySnapshot(str(tmp_path))
    callback.on_fit_start(trainer("cuda"), None)
    callback.on_exception(trainer("cuda", 1), None, torch.cuda.OutOfMemoryError())
    assert calls[1] == str(tmp_path / "memory/rank_3.pickle")


def test_without_a_gpu_a_memory_snapshot_is_said_not_to_exist(calls: list[Any], tmp_path: Path) -> None:
    callback: Any = MemorySnapshot(str(tmp_path))
    with pytest.warns(UserWarning, match="only CUDA"):
        callback.on_fit_start(trainer("cpu"), None)
    callback.on_train_end(trainer("cpu", 3), None)
    assert calls == []
    assert not (tmp_path / "memory").exists()
