"""A step's loss and gradients are the mean over all targets that count, however they fall into microbatches, replicas,
accumulated batches and ranks."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from project.engine.split_model import IGNORED
from project.spec.layout import ParallelLayout
from project.spec.partition import Part
from tests.harness.case import SMALL, Case, batches
from tests.harness.dense_gpt import LENGTH, VOCABULARY, GPTModule
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step, relative
from tests.harness.ranks import RankError, RankPools
from tests.harness.trainer import trainer
from tests.harness.training import train, whole

LAYOUTS = {
    "one microbatch": ParallelLayout(),
    "a microbatch for each sequence": ParallelLayout(microbatches=8),
    "replicas": ParallelLayout(dp=4, microbatches=2),
    "replicas of shards": ParallelLayout(dp=2, microbatches=2, dp_mode="shard"),
    "pp2 x dp2 x tp2 x ep2": ParallelLayout(pp=2, dp=2, tp=2, ep=2, microbatches=4),
    "split backward": ParallelLayout(pp=2, schedule="ZBVZeroBubble", virtual_stages=2, microbatches=4),
}
MODEL = replace(SMALL, z_coefficient=0.1, init_std=0.18)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", LAYOUTS)
def test_masked_targets_have_the_oracle_s_loss_and_gradients(ranks: RankPools, name: str, accumulate: int) -> None:
    case = Case(LAYOUTS[name], MODEL, precision="64-true", masked=True, accumulate=accumulate)
    check_step(train(ranks, case), expected(ranks, case), TOLERANCE[case.precision])


def test_fp16_s_loss_scale_and_clipping_see_the_corrected_gradients(ranks: RankPools) -> None:
    case = Case(ParallelLayout(dp=2, microbatches=2), MODEL, precision="32-true", masked=True, clip=0.1, steps=2)
    scaled = replace(case, precision="16-mixed")
    there, here = train(ranks, case), train(ranks, scaled)
    assert here.grad_norms == pytest.approx(there.grad_norms, rel=0.02)
    assert all(relative(here.final[name], there.final[name]) < 0.02 for name in there.final)


# -- a model of one's own -----------------------------------------------------------------------------------------


def none(targets: Tensor) -> None:
    targets[:] = IGNORED


def a_microbatch(targets: Tensor) -> None:
    targets[2:4] = IGNORED


def uneven(targets: Tensor) -> None:
    for row in range(len(targets)):
        targets[row, : 3 * row % LENGTH] = IGNORED


class Guarded(GPTModule):
    """Divides by what counts itself, and never by zero."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        total = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="sum")
        return total / (targets != IGNORED).sum().clamp_min(1)


class Padded(GPTModule):
    """Ignores another number than torch's."""

    def count(self, targets: Tensor) -> Tensor:
        return (targets != 0).sum()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        total = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=0)
        return total / self.count(targets).clamp_min(1)


class Summed(GPTModule):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="sum")


def batch(mask: Any) -> dict[str, Tensor]:
    text = torch.randint(0, VOCABULARY, (8, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    made = {"tokens": text[:, :-1].contiguous(), "targets": text[:, 1:].clone()}
    mask(made["targets"])
    return made


class Gradients(L.Callback):
    def on_before_optimizer_step(self, engine: L.Trainer, module: Any, optimizer: Any) -> None:
        self.found = engine.callback_metrics["train/loss"].item(), whole(module, gradients=True)


def fit(rank: int, world_size: int, layout: ParallelLayout, build: type[GPTModule], mask: Any) -> tuple:
    share = 8 // layout.dp
    start = layout.coordinates(rank).dp * share
    mine = {name: tensor[start : start + share] for name, tensor in batch(mask).items()}
    seen = Gradients()
    engine = trainer(rank, world_size, Case(layout, precision="64-true"), max_steps=1, callbacks=[seen])
    engine.fit(build(), DataLoader([mine], batch_size=None))
    return seen.found


def alone(rank: int, world_size: int, build: type[GPTModule], mask: Any) -> tuple:
    module = build()
    model = module.build_part(Part(0, range(4), True, True)).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(module.initial_weight(name, weight.shape, None))
    whole_batch = batch(mask)
    loss = module.loss(model(whole_batch["tokens"]), whole_batch["targets"])
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize(
    "layout",
    [ParallelLayout(microbatches=4), ParallelLayout(dp=2, microbatches=2), ParallelLayout(tp=2, microbatches=4)],
    ids=["microbatches", "dp", "tp"],
)
@pytest.mark.parametrize(
    ("build", "mask"), [(GPTModule, uneven), (GPTModule, a_microbatch), (Guarded, a_microbatch), (Padded, uneven)]
)
def test_a_model_of_one_s_own_has_one_rank_s_mean(
    ranks: RankPools, layout: ParallelLayout, build: type[GPTModule], mask: Any
) -> None:
    if build is Padded:
        mask = zeros
    loss, gradients = ranks.run(1, alone, build, mask)[0]
    for here, found in ranks.run(layout.world_size, fit, layout, build, mask):
        assert here == pytest.approx(loss, rel=1e-12)
        assert max(relative(found[name], gradients[name]) for name in found) < 1e-12


def zeros(targets: Tensor) -> None:
    uneven(targets)
    targets[targets == IGNORED] = 0


def test_a_step_without_any_target_that_counts_has_loss_zero_and_gradients_of_zero(ranks: RankPools) -> None:
    loss, gradients = ranks.run(1, fit, ParallelLayout(microbatches=2), GPTModule, none)[0]
    assert loss == 0.0
    assert all(not gradient.any() for gradient in gradients.values())


def test_a_loss_that_is_no_mean_is_refused_with_what_it_has_to_be(ranks: RankPools) -> None:
    with pytest.raises(RankError, match="`loss` has to be a mean over the targets that `count` counts"):
        ranks.run(1, fit, ParallelLayout(microbatches=2), Summed, uneven)


def test_masked_cases_have_sequences_with_and_without_targets_that_count() -> None:
    counts = {int(n) for made in batches(Case(ParallelLayout(), masked=True)) for n in (made["targets"] >= 0).sum(1)}
    assert {0, 16} < counts
