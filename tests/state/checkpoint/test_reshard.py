"""Saved under one layout, opened under any other: every ordered pair of nine layouts."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor

from project.engine.parts import local_slices, local_tensor
from project.spec.layout import ParallelLayout
from tests.harness.case import SMALL, Case
from tests.harness.outcome import merged
from tests.harness.saving import run

LAYOUTS = {
    "one rank": ParallelLayout(microbatches=2),
    "pp": ParallelLayout(pp=4, microbatches=4),
    "tp = ep": ParallelLayout(tp=4, ep=4, microbatches=2),
    "pp x tp": ParallelLayout(pp=2, tp=2, ep=2, microbatches=2, partition=(3, 1)),
    "dp, ep > tp": ParallelLayout(dp=2, tp=2, ep=4, microbatches=2),
    "etp": ParallelLayout(dp=2, tp=2, ep=2, etp=2, microbatches=2, recompute="full"),
    "virtual stages": ParallelLayout(
        pp=2, dp=2, virtual_stages=2, schedule="Interleaved1F1B", microbatches=2, recompute="selective"
    ),
    "shards": ParallelLayout(dp=2, tp=2, ep=2, dp_mode="shard", microbatches=2),
    "v of virtual stages": ParallelLayout(pp=2, virtual_stages=2, schedule="ZBVZeroBubble", microbatches=4),
}
BIAS = replace(SMALL, expert_balance="bias", bias_update_rate=1e-3)
SAVED = 2


def case(name: str, steps: int) -> Case:
    return Case(LAYOUTS[name], model=BIAS, steps=steps)


class Comparison(L.Callback):
    """Compares this rank's tensors before the first step with the saved ones, bit by bit."""

    def __init__(self, saved: dict[str, Tensor]) -> None:
        self.saved, self.differing, self.compared = saved, [], 0

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        strategy: Any = trainer.strategy
        here = strategy.lightning_module_state_dict()
        for optimizer in strategy.named_optimizers():
            here |= optimizer.tensors()
        for name, tensor in here.items():
            if not torch.equal(local_tensor(tensor), self.saved[name][local_slices(tensor)]):
                self.differing.append(name)
        self.compared = len(here)


def load_each(rank: int, world_size: int, name: str, folder: Path, sources: list[str]) -> dict[str, tuple]:
    found = {}
    for source in sources:
        comparison = Comparison(torch.load(folder / f"{source}.pt"))
        resume, away = folder / source / f"step={SAVED}.ckpt", folder / f"{source} in {name}"
        further, nothing = case(name, SAVED + 1), {"save_top_k": 0, "save_last": None}
        ending = run(rank, world_size, further, away, resume, (comparison,), tensors=False, **nothing)
        found[source] = (comparison.differing, comparison.compared, ending.losses)
    return found


def save(rank: int, world_size: int, name: str, folder: Path) -> tuple:
    saved = run(rank, world_size, case(name, SAVED), folder)
    further = case(name, SAVED + 1)
    return saved, run(rank, world_size, further, folder, folder / "last.ckpt", tensors=False, save_top_k=0)


@pytest.fixture(scope="module")
def saved(ranks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[float]]]:
    """A folder with each layout's checkpoint and its tensors, and each one's next loss."""
    folder = tmp_path_factory.mktemp("saved")
    losses = {}
    for name, layout in LAYOUTS.items():
        pairs = ranks.run(layout.world_size, save, name, folder / name)
        torch.save(merged([before for before, _ in pairs]).tensors, folder / f"{name}.pt")
        losses[name] = merged([after for _, after in pairs]).losses
    return folder, losses


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_checkpoint_opens_under_every_other_layout_bit_identical_with_the_same_next_loss(
    ranks, saved, name: str
) -> None:
    folder, losses = saved
    sources = [source for source, target in permutations(LAYOUTS, 2) if target == name]
    assert len(sources) == len(LAYOUTS) - 1
    for found in ranks.run(LAYOUTS[name].world_size, load_each, name, folder, sources):
        for source, (differing, compared, after) in found.items():
            assert differing == [], f"saved under {source}"
            assert compared > 40
            assert after == pytest.approx(losses[source], rel=1e-6), f"saved under {source}"
