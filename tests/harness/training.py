"""A case trained on the pool's ranks under a plain `Trainer.fit`."""

from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig, build_optimizer
from tests.harness.case import LEARNING_RATE, Case, batches, first_weight, steer
from tests.harness.outcome import Outcome, biases, merged
from tests.harness.ranks import RankPools
from tests.harness.trainer import trainer


class CaseModule(MoEModule):
    """The case's model, trained at a constant learning rate with the case's routing."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.model, OptimizerConfig(learning_rate=LEARNING_RATE), seq_len=case.seq_len)
        self.case = case

    def reset_part(self, part: Any) -> None:
        super().reset_part(part)
        steer(part, self.case)

    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        return first_weight(self.case, name, shape, index)

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.optimizer_config, self.named_weights())


class Numbers(L.Callback):
    """Records a rank's losses and norms through the hooks of a plain callback."""

    def __init__(self) -> None:
        self.outcome = Outcome()

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        self.outcome.grad_norms.append(trainer.strategy.grad_norm)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.outcome.losses.append(trainer.callback_metrics["train/loss"].item())
        self.outcome.auxiliary_losses.append(trainer.callback_metrics["train/aux_loss"].item())
        self.outcome.dropped_fractions.append(trainer.callback_metrics["train/dropped_fraction"].item())


class Observer(Numbers):
    """Records the whole outcome. To gather weights takes a tenth of a case's time, so the first only if asked for."""

    def __init__(self, initial: bool = False) -> None:
        super().__init__()
        self.initial = initial

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        if self.initial:
            self.outcome.initial = whole(module)

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        if not self.outcome.gradients:
            self.outcome.gradients = whole(module, gradients=True)
        super().on_before_optimizer_step(trainer, module, optimizer)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self.outcome.final = whole(module)
        for part in module.parts:
            self.outcome.biases |= biases(part)


def whole(module: MoEModule, gradients: bool = False) -> dict[str, Tensor]:
    """This stage's weights or gradients, whole, by global name. Every rank of the stage calls it."""
    values = {name: weight.grad if gradients else weight.detach() for name, weight in module.named_weights()}
    return {name: (v.full_tensor() if isinstance(v, DTensor) else v).cpu().clone() for name, v in values.items()}


def loader(case: Case, rank: int) -> DataLoader:
    """The batches as the rank's replica sees them: its share of each batch's sequences."""
    share = case.batch // case.layout.dp
    replica = case.layout.coordinates(rank).dp
    mine = slice(replica * share, (replica + 1) * share)
    shares = [{key: tensor[mine].clone() for key, tensor in batch.items()} for batch in batches(case)]
    return DataLoader(shares, batch_size=None)  # type: ignore[arg-type]


def run(
    rank: int,
    world_size: int,
    case: Case,
    *callbacks: L.Callback,
    module: type[CaseModule] = CaseModule,
    validate: bool = False,
    **options: Any,
) -> L.Trainer:
    """Trains the case on this rank with `callbacks`, and returns the Trainer; `options` are the Trainer's. With
    `validate` the training batches are validated on, too."""
    engine = trainer(
        rank,
        world_size,
        case,
        max_steps=case.steps,
        accumulate_grad_batches=case.accumulate,
        gradient_clip_val=case.clip,
        callbacks=list(callbacks),
        **options,
    )
    engine.fit(module(case), loader(case, rank), loader(case, rank) if validate else None)
    return engine


def fit(rank: int, world_size: int, case: Case, initial: bool = False, **options: Any) -> Outcome:
    """This rank's outcome of training the case."""
    observer = Observer(initial)
    run(rank, world_size, case, observer, **options)
    return observer.outcome


def train(pools: RankPools, case: Case, initial: bool = False) -> Outcome:
    """The whole model's outcome of training `case` under its layout, computed once a session."""
    return pools.once(("train", case, initial), lambda: merged(pools.run(case.layout.world_size, fit, case, initial)))
