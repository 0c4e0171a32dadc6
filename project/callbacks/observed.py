"""The interface of strategy and module that the callbacks read, beyond Lightning's, and collectives of theirs."""

from collections.abc import Mapping
from typing import Any, Protocol, cast

import lightning.pytorch as L
import torch
import torch.distributed as dist
from torch import Tensor

from project.engine.clock import Clock
from project.engine.mesh import Mesh
from project.engine.spans import Phases, Span
from project.engine.stage import Watch
from project.observe.record import RunRecord
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig


class ObservedStrategy(Protocol):
    """`grad_norm` is that of the last optimizer step, over all ranks, before clipping; `watchers` are entered around
    every stage's forward computation; `clock` is that of all ranks; `phases` and spans are the last batch's; in
    `record` callbacks leave what others read."""

    layout: ParallelLayout
    record: RunRecord

    @property
    def mesh(self) -> Mesh: ...

    @property
    def grad_norm(self) -> float: ...

    @property
    def watchers(self) -> list[Watch]: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def phases(self) -> Phases: ...

    def parameters_here(self) -> int: ...

    def take_spans(self) -> list[Span]: ...


class ObservedModule(Protocol):
    """A module that reports the last optimizer step, the same on all ranks: `expert_load` `[layers, experts]`, in
    assignments, and `router_entropy` `[layers]`, in nats; zeros for a layer without experts."""

    config: ModelConfig
    expert_load: Tensor
    router_entropy: Tensor


def strategy_of(trainer: L.Trainer) -> ObservedStrategy:
    return cast(ObservedStrategy, trainer.strategy)


def observed(module: L.LightningModule) -> ObservedModule:
    return cast(ObservedModule, module)


def tokens_in(batch: Mapping[str, Tensor], layout: ParallelLayout) -> int:
    """Tokens of all replicas together: every rank of a replica is given the same batch."""
    return batch["tokens"].numel() * layout.dp


def over_ranks(trainer: L.Trainer, values: list[float]) -> list[list[float]]:
    """Returns for each number the list of all ranks' values, on all ranks; collective."""
    here = torch.tensor(values, dtype=torch.float64, device=trainer.strategy.root_device)
    if not dist.is_initialized():
        return here.unsqueeze(1).tolist()
    everywhere = here.new_empty(dist.get_world_size() * len(values))
    dist.all_gather_single(everywhere, here)
    return everywhere.view(-1, len(values)).T.tolist()


def gathered(here: Any) -> list[Any]:
    """Every rank's value, by rank, on all ranks; collective."""
    if not dist.is_initialized():
        return [here]
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, here)
    return everywhere
