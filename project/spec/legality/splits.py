"""The ways to split a number of ranks into degrees that divide the model and the batch. `RULES` may forbid some."""

from __future__ import annotations

from collections.abc import Iterator

from project.spec.legality.size import divisors
from project.spec.model import ModelConfig


def dense_splits(world_size: int, model: ModelConfig, batch_size: int) -> Iterator[tuple[int, int, int]]:
    """(pp, dp, tp) by rising tp and pp; `batch_size` counts the sequences of all replicas."""
    for tp in divisors(world_size):
        if model.num_kv_heads % tp:
            continue
        for pp in divisors(world_size // tp):
            dp = world_size // (tp * pp)
            if pp <= model.num_layers and batch_size % dp == 0:
                yield pp, dp, tp


def expert_splits(stage_ranks: int, model: ModelConfig) -> Iterator[tuple[int, int]]:
    """(ep, etp) over the dp x tp ranks of a stage, by rising etp and ep; (1, 1) alone where no layer has experts."""
    if model.num_dense_layers >= model.num_layers:
        yield 1, 1
        return
    for etp in divisors(stage_ranks):
        for ep in divisors(stage_ranks // etp):
            if model.num_experts % ep == 0 and model.d_ff % etp == 0:
                yield ep, etp
