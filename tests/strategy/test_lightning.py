"""A Lightning user's expectations hold under the strategy."""

import math
from dataclasses import replace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from project.model.transformer import Balancing
from project.spec.layout import ParallelLayout
from project.strategy.hybrid import HybridParallelStrategy
from project.training.split_transformer import cross_entropy
from tests.harness.case import Case, batches
from tests.harness.oracle import expected
from tests.harness.trainer import cpu_trainer, trainer
from tests.harness.training import CaseModule, loader, run, train, whole

LAYOUT = ParallelLayout(pp=2, tp=2, ep=2, microbatches=4)


def evaluate(rank: int, world_size: int, case: Case, verb: str) -> float:
    engine = trainer(rank, world_size, case)
    (results,) = getattr(engine, verb)(CaseModule(case), dataloaders=loader(case, rank), verbose=False)
    return next(value for name, value in results.items() if name.endswith("/loss"))


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_validate_and_test_give_every_rank_the_mean_loss(ranks, verb: str) -> None:
    case = Case(LAYOUT, steps=3)
    losses = ranks.run(4, evaluate, case, verb)
    alone = ranks.run(1, mean_loss, case)[0]
    assert len(set(losses)) == 1
    assert losses[0] == pytest.approx(alone, rel=1e-5)


def mean_loss(rank: int, world_size: int, case: Case) -> float:
    from tests.harness.case import initialized

    model = initialized(case.model, torch.float64)
    losses = [cross_entropy(model(b["tokens"], Balancing()), b["targets"]).item() for b in batches(case)]
    return sum(losses) / len(losses)


class ScheduledModule(CaseModule):
    """A module that halves its learning rate every step."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, halved), "interval": "step"}}


def halved(step: int) -> float:
    return 0.5**step


class Diary(L.Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []
        self.validations: list[float] = []
        self.order: list[str] = []

    def on_after_backward(self, trainer: L.Trainer, module: Any) -> None:
        self.order.append("after_backward")

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        self.order.append("before_step")

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.order.append("batch_end")
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        self.validations.append(trainer.callback_metrics["val/loss"].item())


def keep_diary(rank: int, world_size: int, case: Case) -> dict[str, Any]:
    diary = Diary()
    validation = {"val_check_interval": case.steps * case.accumulate, "check_val_every_n_epoch": None}
    engine = run(rank, world_size, case, diary, module=ScheduledModule, validate=True, **validation)
    return {
        "rates": diary.rates,
        "validations": diary.validations,
        "order": diary.order,
        "global_step": engine.global_step,
    }


def test_schedulers_hooks_validation_and_accumulation_go_by_optimizer_steps(ranks) -> None:
    diaries = ranks.run(4, keep_diary, Case(LAYOUT, steps=2, accumulate=2))
    first = diaries[0]
    assert all(diary == first for diary in diaries)
    assert first["global_step"] == 2
    assert first["rates"] == [1e-3, 5e-4, 5e-4, 2.5e-4]
    once = ["after_backward", "batch_end", "after_backward", "before_step", "batch_end"]
    assert first["order"] == once * 2
    assert len(first["validations"]) == 1


class Gradients(L.Callback):
    """The gradients of the last batch of an optimizer step, as each hook sees them, whole and by name."""

    def __init__(self) -> None:
        self.after_backward: dict[str, torch.Tensor] = {}
        self.before_step: dict[str, torch.Tensor] = {}

    def on_after_backward(self, trainer: L.Trainer, module: Any) -> None:
        self.after_backward = whole(module, gradients=True)

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        self.before_step = whole(module, gradients=True)


def gradients_in_hooks(rank: int, world_size: int, case: Case) -> list[tuple[str, bool]]:
    seen = Gradients()
    engine = run(rank, world_size, case, seen)
    scale = engine.strategy.step.scale
    return [(name, torch.equal(grad, scale * seen.before_step[name])) for name, grad in seen.after_backward.items()]


def test_hooks_see_summed_gradients_scaled_after_backward_and_unscaled_before_the_step(ranks) -> None:
    """As Lightning documents them; scaling by a power of two changes no bit."""
    layout = ParallelLayout(pp=2, dp=2, microbatches=2)
    for rank in ranks.run(4, gradients_in_hooks, Case(layout, precision="16-mixed", accumulate=2, clip=1e-3)):
        assert len(rank) > 5
        assert [name for name, same in rank if not same] == []


def clip_by_value(rank: int, world_size: int, case: Case) -> float:
    largest = Largest()
    run(rank, world_size, case, largest, gradient_clip_algorithm="value")
    return largest.value


class Largest(L.Callback):
    """The largest gradient entry that the optimizer sees."""

    value = 0.0

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        step = trainer.optimizers[0].step

        def watched(*args: Any, **kwargs: Any) -> Any:
            grads = [weight.grad.to_local() for _, weight in module.named_weights()]
            self.value = max(grad.abs().max().item() for grad in grads if grad.numel())
            return step(*args, **kwargs)

        trainer.optimizers[0].step = watched  # type: ignore[method-assign]


def test_gradients_are_clipped_by_value(ranks) -> None:
    assert ranks.run(4, clip_by_value, Case(LAYOUT, clip=1e-4)) == pytest.approx([1e-4] * 4)


# -- precision ----------------------------------------------------------------------------------------------------


class Overflow(CaseModule):
    """Plants an inf in one parameter's gradient on one rank, after the second step's backward."""

    planted_on = 3

    def on_after_backward(self) -> None:
        if self.global_rank == self.planted_on and self.trainer.global_step == 1 and not self.planted:
            weights = dict(self.named_weights())
            weights[next(name for name in weights if name.endswith("wq.weight"))].grad.to_local()[0] = math.inf
            self.planted = True

    planted = False


def overflow(rank: int, world_size: int, case: Case) -> dict[str, Any]:
    run(rank, world_size, case, scales := Scales(), module=Overflow)
    return {"moved": scales.moved, "scales": scales.scales}


class Scales(L.Callback):
    def __init__(self) -> None:
        self.scales: list[float] = []
        self.moved: list[bool] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        self.before = [weight.detach().to_local().clone() for _, weight in module.named_weights()]

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        after = [weight.detach().to_local() for _, weight in module.named_weights()]
        self.moved.append(not all(torch.equal(a, b) for a, b in zip(self.before, after, strict=True)))
        self.before = []
        self.scales.append(trainer.strategy.step.scale)


@pytest.mark.parametrize(
    "layout",
    [
        ParallelLayout(pp=4, tp=4, ep=4, microbatches=4),
        ParallelLayout(pp=2, dp=2, tp=4, ep=2, etp=4, virtual_stages=2, schedule="DualPipeV", microbatches=4),
    ],
    ids=str,
)
def test_fp16_overflow_on_one_rank_of_sixteen_is_skipped_by_all(ranks, layout: ParallelLayout) -> None:
    seen = ranks.run(16, overflow, Case(layout, precision="16-mixed", steps=4))
    assert all(rank == seen[0] for rank in seen)
    assert seen[0]["moved"] == [True, False, True, True]
    assert seen[0]["scales"] == [2.0**16, 2.0**15, 2.0**15, 2.0**15]


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16-mixed", 2e-2), ("16-mixed", 2e-2), ("bf16-true", 5e-2)])
def test_lower_precisions_stay_near_fp32(ranks, precision: str, tolerance: float) -> None:
    case = Case(LAYOUT, steps=20)
    low = train(ranks, replace(case, precision=precision))
    assert low.losses == pytest.approx(expected(ranks, case).losses, rel=tolerance)


def test_the_trainer_s_precision_is_the_strategy_s() -> None:
    engine = cpu_trainer(strategy=HybridParallelStrategy(ParallelLayout()), precision="bf16-mixed")
    assert engine.precision == engine.strategy.precision_plugin.precision == "bf16-mixed"


def test_a_precision_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        cpu_trainer(strategy=HybridParallelStrategy(ParallelLayout(), precision="32-true"), precision="bf16-mixed")


class Determinism(L.Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        self.asked = torch.are_deterministic_algorithms_enabled()


def is_deterministic(rank: int, world_size: int, case: Case, asked: bool) -> bool:
    """Whether a step has only torch's deterministic algorithms, those that have none being errors."""
    looking = Determinism()
    try:
        run(rank, world_size, case, looking, deterministic=asked)
    finally:
        torch.use_deterministic_algorithms(False)
    return looking.asked


@pytest.mark.parametrize("asked", [True, False])
def test_a_deterministic_trainer_has_deterministic_algorithms_on_every_rank(ranks, asked: bool) -> None:
    layout = ParallelLayout(pp=2, tp=2, ep=2, microbatches=2)
    assert ranks.run(4, is_deterministic, Case(layout), asked) == [asked] * 4
