"""A checkpoint's JSON is checked against its schema: a key that is missing or malformed is named with its file."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from project.spec.layout import ParallelLayout
from project.state.checkpoint.form import Rank, has_form
from project.state.checkpoint.manifest import META, CheckpointError, rank_file
from tests.harness.case import SMALL, Case
from tests.harness.checkpoint_files import reseal
from tests.harness.saving import run, train

CASE = Case(ParallelLayout(), replace(SMALL, num_layers=1), steps=1)
RANK = rank_file(0)


@pytest.fixture(scope="module")
def saved(ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    train(ranks, CASE, folder)
    return folder / "step=1.ckpt"


def refusal(rank: int, world_size: int, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        run(rank, world_size, replace(CASE, steps=2), folder.parent / "on", folder)
    return str(caught.value)


ABSENT = object()
BYTES = torch.zeros(16, dtype=torch.uint8)
CHANGES = [
    *((META, key, ABSENT) for key in ("layout", "world_size", "loops", "callbacks", "pytorch-lightning_version")),
    *((META, key, "x") for key in ("world_size", "loops", "callbacks", "pytorch-lightning_version")),
    (META, "world_size", 0),
    *((RANK, key, ABSENT) for key in ("optimizers", "random", "lr_schedulers")),
    *((RANK, key, "x") for key in ("optimizers", "random", "lr_schedulers")),
    (RANK, "optimizers", [[{"options": {}, "state": {}}]]),
    *((META, key, value) for key, value in (("global_step", -1), ("epoch", "1"), ("world_size", 2**40))),
    (META, "loops", {"fit_loop": {}}),
    (META, "loops", {"fit_loop": {"epoch_progress": {"total": {"ready": "x"}}}}),
    (META, "callbacks", {"RunSummary": {"tokens": -1}}),
    (META, "callbacks", {"Checkpoint{'monitor': 'x'}": {"best_k_models": 3}}),
    (META, "TokenDataModule", {"position": "x"}),
    (RANK, "lr_schedulers", [{"last_epoch": "x"}]),
    (RANK, "random", {"torch": 1, "python": 2}),
]


@pytest.mark.parametrize(("file", "key", "value"), CHANGES)
def test_malformed_json_of_a_checkpoint_is_refused_by_its_key(
    ranks, saved: Path, tmp_path: Path, file: str, key: str, value: Any
) -> None:
    folder = tmp_path / saved.name
    folder.mkdir()
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / file).read_text())
    content[key] = value
    if value is ABSENT:
        del content[key]
    (folder / file).write_text(json.dumps(content))
    reseal(folder)
    (said,) = ranks.run(1, refusal, folder)
    assert said.startswith(f"{folder / file}: has {key}")
    assert said.endswith("; resume from another checkpoint")


@pytest.mark.parametrize(("on_gpu", "sound"), [(BYTES, True), ([BYTES, BYTES], True), ("x", False), ([3], False)])
def test_the_state_of_a_gpu_s_generator_is_bytes(on_gpu: Any, sound: bool) -> None:
    with nullcontext() if sound else pytest.raises(CheckpointError, match=r"random\.torch\.cuda"):
        python = (3, (0,) * 625, None)
        random = {"torch": BYTES, "python": python, "torch.cuda": on_gpu}
        has_form({"optimizers": [], "lr_schedulers": [], "random": random}, Rank, Path(RANK))
