"""A module's and a callback's hooks around the update do what Lightning documents: a run's weights equal those of the
same hooks in a plain LightningModule, which holds the whole model."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import callbacks
from torch import Tensor
from torch.utils.data import DataLoader

from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.dense_gpt import GPT, LENGTH, VOCABULARY, GPTModule
from tests.harness.ranks import RankPools
from tests.harness.trainer import cpu_trainer, trainer
from tests.harness.training import whole

CLIP = 0.3


class Shared:
    """What a module of either kind has: the loss of a batch, its weights by name, and plain SGD."""

    base: Callable[[dict[str, Tensor]], Tensor]
    named_weights: Any

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        return self.base(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([weight for _, weight in self.named_weights()], lr=0.5)

    def halve_gradients(self) -> None:
        for _, weight in self.named_weights():
            weight.grad.mul_(0.5)


class Plain(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model, first = GPT(), GPTModule()
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(first.initial_weight(name, weight.shape, None))

    def base(self, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(self.model(batch["tokens"]).flatten(0, 1), batch["targets"].flatten())

    def named_weights(self) -> Any:
        return self.model.named_parameters()


class Divided(GPTModule):
    def base(self, batch: dict[str, Tensor]) -> Tensor:
        return self.strategy.run_batch(batch["tokens"], batch["targets"], train=True)


class HalvedBeforeClipping(Shared):
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.halve_gradients()


class HalvedAfterBackward(Shared):
    def on_after_backward(self) -> None:
        self.halve_gradients()


class ClippedByItself(Shared):
    def configure_gradient_clipping(self, optimizer: Any, **given: Any) -> None:
        self.halve_gradients()
        self.clip_gradients(optimizer, gradient_clip_val=0.2, gradient_clip_algorithm="norm")  # type: ignore[attr-defined]


class SomeWeights(Shared):
    """Its optimizer has the weights of two layers; those of the others gather no gradients and count in no norm."""

    def configure_optimizers(self) -> Any:
        some = [weight for name, weight in self.named_weights() if "layers.0." in name or "layers.3." in name]
        return torch.optim.SGD(some, lr=0.5)


class EverySecondStep(Shared):
    """Gradients of a batch whose step is not taken are cleared."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if batch_idx % 2 == 0:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


class WarmUp(Shared):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 + batch_idx)
        optimizer.step(closure=optimizer_closure)


def halving() -> L.Callback:
    def halve(trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        module.halve_gradients()

    return callbacks.LambdaCallback(on_before_optimizer_step=halve)


def batches(start: int = 0, size: int = 8) -> list[dict[str, Tensor]]:
    text = torch.randint(0, VOCABULARY, (4, 8, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    mine = text[:, start : start + size]
    return [{"tokens": batch[:, :-1].contiguous(), "targets": batch[:, 1:].contiguous()} for batch in mine]


class Last(L.Callback):
    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self.weights = whole(module)


def module_of(hooks: type, base: type) -> Any:
    return type(f"{hooks.__name__}{base.__name__}", (hooks, base), {})()


def alone(hooks: type, more: list[L.Callback]) -> dict[str, Tensor]:
    last = Last()
    engine = cpu_trainer(devices=1, max_steps=4, gradient_clip_val=None if "ByItself" in hooks.__name__ else CLIP)
    engine.callbacks += [*more, last]  # type: ignore[attr-defined]
    engine.fit(module_of(hooks, Plain), DataLoader(batches(), batch_size=None))  # type: ignore[arg-type]
    return last.weights


def divided(rank: int, world_size: int, case: Case, hooks: type, more: list[Callable[[], L.Callback]]) -> Any:
    last = Last()
    share = 8 // case.layout.dp
    mine = batches(case.layout.coordinates(rank).dp * share, share)
    clip = None if "ByItself" in hooks.__name__ else CLIP
    added = [*(build() for build in more), last]
    engine = trainer(rank, world_size, case, max_steps=4, gradient_clip_val=clip, callbacks=added)
    engine.fit(module_of(hooks, Divided), DataLoader(mine, batch_size=None))  # type: ignore[arg-type]
    return last.weights


@pytest.mark.parametrize(
    ("hooks", "more"),
    [
        *((hooks, []) for hooks in (HalvedBeforeClipping, HalvedAfterBackward, ClippedByItself, SomeWeights)),
        *((hooks, []) for hooks in (EverySecondStep, WarmUp)),
        (Shared, [halving]),
    ],
)
@pytest.mark.parametrize("layout", [ParallelLayout(microbatches=2), ParallelLayout(pp=2, dp=2, microbatches=2)])
def test_hooks_around_the_update_do_what_lightning_documents(
    ranks: RankPools, layout: ParallelLayout, hooks: type, more: list[Callable[[], L.Callback]]
) -> None:
    wanted = alone(hooks, [build() for build in more])
    found: dict[str, Tensor] = {}
    for weights in ranks.run(layout.world_size, divided, Case(layout), hooks, more):
        found |= weights
    assert found.keys() == wanted.keys()
    worst = max((found[name] - weight).norm() / weight.norm() for name, weight in wanted.items())
    assert worst < 1e-5
