"""What of Lightning the strategy cannot do is refused by name before a weight moves."""

import inspect
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch import callbacks
from torch import Tensor
from torch.utils.data import DataLoader

from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.dense_gpt import LENGTH, VOCABULARY, GPTModule
from tests.harness.paths import ROOT
from tests.harness.ranks import RankError, RankPools
from tests.harness.trainer import trainer


class Manual(GPTModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Scaled(GPTModule):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return 2 * super().training_step(batch, batch_idx)


class ScaledLater(GPTModule):
    """Its first step returns the loss as it is, as an annealed factor would."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + self.trainer.global_step)


class Skipping(GPTModule):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        super().training_step(batch, batch_idx)


class OwnBackward(GPTModule):
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        (3 * loss).backward()


class OwnZeroGrad(GPTModule):
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:  # type: ignore[override]
        optimizer.zero_grad(set_to_none=True)


class SeveralPasses(GPTModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS([weight for _, weight in self.named_weights()])


class BesideParts(GPTModule):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = torch.nn.Parameter(torch.ones(()))


class Regularised(GPTModule):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        weight = next(iter(self.parameters()))
        return super().training_step(batch, batch_idx) + 0.1 * weight.to_local().square().sum()


class Twice(GPTModule):
    """Two batches in one step; it returns the sum of their losses, as Lightning's users do."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + super().training_step(batch, batch_idx)


def batches() -> list[dict[str, Tensor]]:
    text = torch.randint(0, VOCABULARY, (2, 4, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    return [{"tokens": batch[:, :-1].contiguous(), "targets": batch[:, 1:].contiguous()} for batch in text]


def fit(rank: int, world_size: int, build: type[GPTModule], options: dict[str, Any]) -> None:
    layout = ParallelLayout(microbatches=2)
    made = [build_callback() for build_callback in options.pop("callbacks", [])]
    engine = trainer(rank, world_size, Case(layout), max_steps=2, callbacks=made, **options)
    engine.fit(build(), DataLoader(batches(), batch_size=None))


@pytest.mark.parametrize(
    ("build", "options", "said"),
    [
        (Manual, {}, "Manual has automatic_optimization=False"),
        (Scaled, {}, "training_step returned .* a factor or a term belongs into `loss`"),
        (Scaled, {"accumulate_grad_batches": 2}, "training_step returned"),
        (ScaledLater, {}, "training_step returned .* a factor or a term belongs into `loss`"),
        (Skipping, {}, "training_step returned None, which would skip a batch"),
        (Regularised, {}, "training_step returned has a graph of its own"),
        (OwnBackward, {}, "OwnBackward has a backward of its own, which nobody would call"),
        (OwnZeroGrad, {}, "OwnZeroGrad has an optimizer_zero_grad of its own, which would clear the gradients"),
        (SeveralPasses, {}, "the optimizer LBFGS runs forward and backward within its step"),
        (BesideParts, {}, "BesideParts has parameters that are in none of its parts: temperature;"),
        (GPTModule, {"detect_anomaly": True}, "trainer.detect_anomaly=True"),
        (
            GPTModule,
            {"callbacks": [partial(callbacks.StochasticWeightAveraging, 1e-3)]},
            "StochasticWeightAveraging: it",
        ),
        (GPTModule, {"callbacks": [callbacks.EMAWeightAveraging]}, "EMAWeightAveraging: it"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*detect_anomaly.*")
def test_a_feature_without_effect_is_refused_by_name(
    ranks: RankPools, build: type[GPTModule], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RankError, match=said):
        ranks.run(1, fit, build, options)


@pytest.mark.parametrize("build", [GPTModule, Twice])
def test_what_the_schedule_returned_may_be_returned(ranks: RankPools, build: type[GPTModule]) -> None:
    ranks.run(1, fit, build, {"accumulate_grad_batches": 2})


class Counting(GPTModule):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("constant", torch.zeros(()), persistent=False)


def warned(rank: int, world_size: int, build: type[GPTModule]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(rank, world_size, build, {})
    return [str(each.message) for each in caught if "in none of its parts" in str(each.message)]


def test_values_that_no_checkpoint_has_are_said(ranks: RankPools) -> None:
    (said,) = ranks.run(1, warned, Counting)[0]
    assert "no checkpoint: seen; persistent=False" in said
    assert ranks.run(1, warned, GPTModule) == [[]]


def test_the_documented_table_has_every_argument_and_callback_of_lightning_s() -> None:
    table = Path(ROOT, "docs/lightning.md").read_text()
    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    arguments = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    assert named == arguments | set(callbacks.__all__)


def test_the_documented_table_refuses_what_the_strategy_refuses() -> None:
    from project.strategy.unsupported import CALLBACKS

    table = Path(ROOT, "docs/lightning.md").read_text()
    refused = set(re.findall(r"^\| `(\w+)` \| refused", table, re.MULTILINE))
    every = [getattr(callbacks, name) for name in callbacks.__all__]
    wanted = {each.__name__ for each in every if issubclass(each, tuple(CALLBACKS))}
    assert refused == wanted | {"detect_anomaly"}
