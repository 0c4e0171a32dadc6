"""Saved under one precision, resumed under another; and what a precision keeps of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch

from project.spec.layout import ParallelLayout
from project.state.checkpoint.reader import Checkpoint
from tests.harness.case import SMALL, Case
from tests.harness.saving import run, train

CASE = Case(ParallelLayout(pp=2, tp=2, ep=2, microbatches=2), replace(SMALL, num_layers=2), steps=2)
WEIGHT = {"32-true": torch.float32, "64-true": torch.float64, "bf16-true": torch.bfloat16, "bf16-mixed": torch.float32}


@pytest.fixture(scope="module")
def saved(ranks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A checkpoint in fp32, and the next loss."""
    folder = tmp_path_factory.mktemp("saved")
    train(ranks, CASE, folder)
    path = folder / "step=2.ckpt"
    return path, train(ranks, replace(CASE, steps=3), folder / "on", path).losses[0]


@pytest.mark.parametrize(
    ("precision", "within"), [("64-true", 1e-5), ("bf16-mixed", 1e-2), ("16-mixed", 1e-2), ("bf16-true", 2e-2)]
)
def test_a_run_resumes_under_another_precision(ranks, saved, precision: str, within: float, tmp_path: Path) -> None:
    path, loss = saved
    case = replace(CASE, precision=precision, steps=3)
    ending = train(ranks, case, tmp_path, path)
    assert ending.losses == [pytest.approx(loss, rel=within)]
    dtype = WEIGHT.get(precision, torch.float32)
    kept = {name: tensor.dtype for name, tensor in ending.tensors.items() if not name.endswith("expert_bias")}
    matrices = {name: kind for name, kind in kept.items() if ".step." not in name}
    assert set(matrices.values()) == {dtype}, "weights and moments alike"


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_resuming_under_another_precision_loads_the_saved_numbers_in_the_new_width(
    ranks, saved, precision: str, tmp_path: Path
) -> None:
    path, _ = saved
    ending = train(ranks, replace(CASE, precision=precision), tmp_path, path)  # no step is left to take
    checkpoint = Checkpoint(path)
    for name, tensor in ending.tensors.items():
        assert torch.equal(tensor, checkpoint.read(name).to(tensor.dtype)), name


class Scale(L.Callback):
    def on_train_end(self, trainer: L.Trainer, *rest: Any) -> None:
        self.state = trainer.precision_plugin.state_dict()


def scale_after(rank: int, world_size: int, steps: int, folder: Path, resume: Path | None) -> tuple:
    scale = Scale()
    ending = run(rank, world_size, replace(CASE, precision="16-mixed", steps=steps), folder, resume, (scale,))
    return scale.state, ending.losses


def test_a_resumed_run_goes_on_with_the_fp16_loss_scale(ranks, tmp_path: Path) -> None:
    (state, losses), *_ = ranks.run(4, scale_after, 4, tmp_path / "one", None)
    ranks.run(4, scale_after, 2, tmp_path / "two", None)
    (resumed, later), *_ = ranks.run(4, scale_after, 4, tmp_path / "two", tmp_path / "two" / "step=2.ckpt")
    assert resumed == state
    assert state["good_steps"] == 4
    assert later == losses[2:]
