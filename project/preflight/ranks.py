"""Faults of the number of ranks: more than there are GPUs, or another number than a launcher has started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from project.preflight.gpus import gpu_faults
from project.preflight.surroundings import Surroundings
from project.preflight.world import world_size_faults
from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig


def rank_faults(
    trainer: Mapping[str, Any],
    layout: ParallelLayout,
    model: ModelConfig,
    batch: tuple[int, int],
    around: Surroundings,
) -> Iterator[Fault]:
    """`batch` is sequences a step and tokens a sequence. Yields none where the degrees are no numbers."""
    if all(type(degree) is int and degree > 0 for degree in (layout.pp, layout.dp, layout.tp)):
        yield from gpu_faults(trainer, layout, model, batch, around)
        yield from world_size_faults(layout, model, batch, around.environ)
