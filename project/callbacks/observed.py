"""Strategy and module as the callbacks read them, and a collective of theirs."""

from collections.abc import Mapping
from typing import Protocol, cast

import lightning.pytorch as L
import torch
import torch.distributed as dist
from torch import Tensor

from project.compat.torch_internals import all_gather_single
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.strategy.hybrid import HybridParallelStrategy


class ObservedModule(Protocol):
    """A module that reports the last optimizer step, the same on all ranks: `expert_load` `[layers, experts]`, in
    assignments, and `router_entropy` `[layers]`, in nats; zeros for a layer without experts."""

    config: ModelConfig
    expert_load: Tensor
    router_entropy: Tensor


def strategy_of(trainer: L.Trainer) -> HybridParallelStrategy:
    return cast(HybridParallelStrategy, trainer.strategy)


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
    all_gather_single(everywhere, here)
    return everywhere.view(-1, len(values)).T.tolist()
