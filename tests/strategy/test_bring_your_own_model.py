"""The strategy trains any model: here a dense GPT that knows nothing of this project, held against plain autograd."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, nn
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.utils.data import DataLoader

from project.engine.plan import Plan, ReplicatedWeights
from project.spec.layout import ParallelLayout
from project.spec.partition import Part
from tests.harness import dense_gpt
from tests.harness.case import Case
from tests.harness.dense_gpt import GPT, LENGTH, VOCABULARY, GPTModule
from tests.harness.outcome import TOLERANCE, copies, merged, relative
from tests.harness.trainer import cpu_trainer, trainer
from tests.harness.training import whole

STEPS, BATCH = 2, 8
SCHEDULES = {
    "1F1B": ParallelLayout(pp=2, tp=2, dp=2, microbatches=4),
    "Interleaved1F1B": ParallelLayout(pp=2, tp=2, dp=2, microbatches=4, schedule="Interleaved1F1B", virtual_stages=2),
    "ZBVZeroBubble": ParallelLayout(pp=2, tp=2, dp=2, microbatches=4, schedule="ZBVZeroBubble", virtual_stages=2),
}


@dataclass
class Outcome:
    """Losses and gradient norms of each step, and the loss of validation after the last; gradients of the first step;
    weights after the last."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    validation: float = 0.0
    gradients: dict[str, Tensor] = field(default_factory=dict)
    final: dict[str, Tensor] = field(default_factory=dict)


def batches() -> list[dict[str, Tensor]]:
    """The batches of each step, and one for validation."""
    text = torch.randint(0, VOCABULARY, (STEPS + 1, BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    return [{"tokens": batch[:, :-1].contiguous(), "targets": batch[:, 1:].contiguous()} for batch in text]


# -- one rank -----------------------------------------------------------------------------------------------------


def alone(rank: int, world_size: int) -> Outcome:
    model, module = GPT().double(), GPTModule()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(module.initial_weight(name, parameter.shape, None))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    outcome = Outcome()
    *training, validation = batches()
    for batch in training:
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        outcome.losses.append(loss.item())
        if not outcome.gradients:
            outcome.gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        optimizer.step()
    outcome.final = copies(model.named_parameters())
    outcome.validation = loss_of(model, validation).item()
    return outcome


def loss_of(model: GPT, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["tokens"]).flatten(0, 1), batch["targets"].flatten())


# -- many ranks ---------------------------------------------------------------------------------------------------


class Observer(L.Callback):
    def __init__(self) -> None:
        self.outcome = Outcome()

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        if not self.outcome.gradients:
            self.outcome.gradients = whole(module, gradients=True)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.outcome.losses.append(trainer.callback_metrics["train/loss"].item())
        self.outcome.norms.append(trainer.strategy.grad_norm)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        self.outcome.validation = trainer.callback_metrics["val/loss"].item()

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self.outcome.final = whole(module)


def fit(rank: int, world_size: int, case: Case, build: Callable[[], L.LightningModule] = GPTModule) -> Outcome:
    """Each replica is given its own share of every batch."""
    share = BATCH // case.layout.dp
    start = case.layout.coordinates(rank).dp * share
    shares = [{key: tensor[start : start + share] for key, tensor in batch.items()} for batch in batches()]
    *training, validation = shares
    observer = Observer()
    engine = trainer(rank, world_size, case, max_steps=STEPS, val_check_interval=STEPS, callbacks=[observer])
    engine.fit(build(), DataLoader(training, batch_size=None), DataLoader([validation], batch_size=None))
    return observer.outcome


def train(ranks: Any, layout: ParallelLayout, precision: str) -> Outcome:
    return merged(ranks.run(layout.world_size, fit, Case(layout, precision=precision)))


def check_as_alone(ranks: Any, layout: ParallelLayout, precision: str) -> None:
    wanted = ranks.once("dense GPT alone", lambda: ranks.run(1, alone)[0])
    actual, tolerance = train(ranks, layout, precision), TOLERANCE[precision]
    assert actual.losses == pytest.approx(wanted.losses, rel=tolerance)
    assert actual.validation == pytest.approx(wanted.validation, rel=tolerance)
    for kind in ("gradients", "final"):
        found, known = getattr(actual, kind), getattr(wanted, kind)
        assert found.keys() == known.keys()
        errors = {name: relative(found[name], known[name]) for name in known}
        worst = max(errors, key=errors.__getitem__)
        assert errors[worst] <= tolerance, f"{kind}: {worst} is off by {errors[worst]:.1e}"


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
@pytest.mark.parametrize("dp_mode", ["replicate", "shard"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_user_s_model_trains_over_ranks_as_it_does_alone(ranks, schedule: str, dp_mode: str, precision: str) -> None:
    check_as_alone(ranks, replace(SCHEDULES[schedule], dp_mode=dp_mode), precision)


@pytest.mark.parametrize("dp_mode", ["replicate", "shard"])
def test_a_user_s_model_trains_the_same_when_activations_are_recomputed(ranks, dp_mode: str) -> None:
    check_as_alone(ranks, replace(SCHEDULES["1F1B"], dp_mode=dp_mode, recompute="full"), "64-true")


def forwards_of_a_layer(rank: int, world_size: int, case: Case) -> int:
    calls: list[nn.Module] = []

    class Counting(GPTModule):
        def build_part(self, part: Part) -> GPT:
            built = super().build_part(part)
            built.layers["0"].attention.register_forward_pre_hook(lambda module, args: calls.append(module))
            return built

    engine = trainer(rank, world_size, case, max_steps=1)
    engine.fit(Counting(), DataLoader(batches()[:1], batch_size=None))
    return len(calls)


@pytest.mark.parametrize(("recompute", "times"), [("none", 1), ("full", 2)])
def test_a_user_s_model_s_layers_are_recomputed_where_the_layout_says_so(ranks, recompute: str, times: int) -> None:
    case = Case(ParallelLayout(microbatches=2, recompute=recompute))
    assert ranks.run(1, forwards_of_a_layer, case) == [2 * times]


def fit_with_a_plain_loader(rank: int, world_size: int, case: Case) -> float:
    sequences = [
        dict(zip(batch, pair, strict=True)) for batch in batches()[:1] for pair in zip(*batch.values(), strict=True)
    ]
    engine = trainer(rank, world_size, case, max_steps=1, use_distributed_sampler=True)
    engine.fit(GPTModule(), DataLoader(sequences, batch_size=BATCH // case.layout.dp))
    return engine.callback_metrics["train/loss"].item()


def test_a_plain_data_loader_is_divided_over_the_replicas(ranks) -> None:
    wanted = ranks.once("dense GPT alone", lambda: ranks.run(1, alone)[0])
    losses = ranks.run(4, fit_with_a_plain_loader, Case(ParallelLayout(dp=2, tp=2, microbatches=2)))
    assert losses == pytest.approx([wanted.losses[0]] * 4, rel=1e-5)


# -- mistakes -----------------------------------------------------------------------------------------------------


class Replanned(GPTModule):
    """A module whose plan has other rows, or lacks those that are None."""

    def __init__(self, **rows: Any) -> None:
        super().__init__()
        self.rows = rows

    def plan(self, layout: ParallelLayout) -> Plan:
        return {pattern: row for pattern, row in {**super().plan(layout), **self.rows}.items() if row is not None}


class Tied(GPTModule):
    def build_part(self, part: Part) -> GPT:
        built = super().build_part(part)
        if part.first and part.last:
            built.head.weight = built.tokens.weight
        return built


class Masked(GPTModule):
    def build_part(self, part: Part) -> GPT:
        built = super().build_part(part)
        built.register_buffer("mask", torch.ones(LENGTH, LENGTH).tril())
        return built


MISTAKES: dict[str, tuple[Callable[[], L.LightningModule], str]] = {
    "a module that is not there": (
        partial(Replanned, **{"layers.*.gate": ColwiseParallel()}),
        r"plan rows that match no module: layers\.\*\.gate; modules: .*layers\.\*\.up",
    ),
    "a pattern of the wrong depth": (
        partial(Replanned, **{"layers.*.query": ColwiseParallel(), "blocks.*": ReplicatedWeights()}),
        r"plan rows that match no module: layers\.\*\.query, blocks\.\*; ",
    ),
    "parameters that no row concerns": (
        partial(Replanned, norm=None, tokens=None),
        r"parameters that no row of the plan concerns: tokens\.weight, norm\.weight, norm\.bias$",
    ),
    "a style that is not for the module": (
        partial(Replanned, **{"layers.*.attention": ColwiseParallel()}),
        r"plan row layers\.\*\.attention cannot divide a module of type Attention: ",
    ),
    "tied weights": (Tied, r"parameters with more than one name: tokens\.weight = head\.weight; "),
    "buffers that nobody fills": (Masked, r"buffers without values: mask; fill them in reset_part"),
    "no HybridModule": (BoringModel, r"trains a HybridModule, which BoringModel is not"),
}


def refusal(rank: int, world_size: int, case: Case, build: Callable[[], L.LightningModule]) -> str:
    with pytest.raises((TypeError, ValueError)) as refused:
        fit(rank, world_size, case, build)
    return str(refused.value)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_user_s_module_is_an_error_that_names_it_on_every_rank(ranks, mistake: str) -> None:
    build, message = MISTAKES[mistake]
    for said in ranks.run(2, refusal, Case(ParallelLayout(pp=2, microbatches=2)), build):
        assert re.search(message, said), said


def test_a_batch_that_does_not_divide_is_an_error_that_says_so(ranks) -> None:
    for said in ranks.run(2, refusal, Case(ParallelLayout(pp=2, microbatches=3)), GPTModule):
        assert said == "a replica's batch of 8 does not divide into 3 microbatches"


def test_a_hybrid_module_under_another_strategy_is_refused() -> None:
    engine = cpu_trainer(devices=1, max_steps=1)
    with pytest.raises(TypeError, match=r"GPTModule is trained by Trainer\(strategy=HybridParallelStrategy"):
        engine.fit(GPTModule(), *[DataLoader(batches(), batch_size=None)] * 2)


# -- what is promised ---------------------------------------------------------------------------------------------


def test_a_user_s_model_imports_nothing_of_this_project_but_the_strategy_s_parts() -> None:
    nodes = list(ast.walk(ast.parse(Path(dense_gpt.__file__).read_text())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    ours = {name for name in imported if name.startswith(("project", "tests"))}
    assert ours == {
        "project.spec.layout",
        "project.engine.plan",
        "project.spec.partition",
        "project.strategy.module",
    }


class AddsToGradients(GPTModule):
    """A `training_step` with two schedules, which adds to the gradients after them: all of it counts as if it were one
    function's, and is summed over the ranks."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        once = self.strategy.run_batch(batch["tokens"], batch["targets"], train=True)
        again = self.strategy.run_batch(batch["tokens"], batch["targets"], train=True)
        assert torch.equal(once, again)
        for _, weight in self.named_weights():
            weight.grad.to_local().mul_(2)
        self.log("train/loss", once)
        return once


def test_a_training_step_may_run_several_schedules_and_change_the_gradients_after_them(ranks: Any) -> None:
    layout = ParallelLayout(pp=2, tp=2, dp=2, microbatches=2)
    case = Case(layout, precision="64-true")
    plain = merged(ranks.run(8, fit, case))
    found = merged(ranks.run(8, fit, case, AddsToGradients))
    errors = {name: relative(found.gradients[name], 4 * gradient) for name, gradient in plain.gradients.items()}
    assert max(errors.values()) < TOLERANCE["64-true"]
    assert found.norms[0] == pytest.approx(4 * plain.norms[0], rel=TOLERANCE["64-true"])
