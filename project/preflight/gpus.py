"""Faults of a layout that asks for more GPUs than there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from project.preflight.surroundings import Surroundings
from project.preflight.world import launched_ranks, named_layouts
from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig


def gpu_faults(
    trainer: Mapping[str, Any],
    layout: ParallelLayout,
    model: ModelConfig,
    batch: tuple[int, int],
    around: Surroundings,
) -> Iterator[Fault]:
    """`batch` is sequences a step and tokens a sequence. The accelerator `auto` means the GPUs where there are any."""
    accelerator = trainer["accelerator"]
    if accelerator not in ("auto", "cuda", "gpu"):
        return
    here = around.gpus()
    if here == 0:
        if accelerator != "auto":
            yield Fault("trainer.accelerator", accelerator, "no GPU is present; nearest trainer.accelerator=cpu")
        return
    present = here * _nodes(trainer.get("num_nodes", 1), around.environ)
    if layout.world_size > present:
        message = (
            f"{layout.world_size} ranks (parallel.pp x parallel.dp x parallel.tp) need as many GPUs, but {present} "
            f"{'is' if present == 1 else 'are'} present; use {named_layouts(layout, model, batch, present)}; "
            "or trainer.accelerator=cpu"
        )
        yield Fault("trainer.accelerator", accelerator, message)


def _nodes(asked: object, environ: Mapping[str, str]) -> int:
    """The number of nodes by the launcher's variables, or else by `trainer.num_nodes`."""
    launched = launched_ranks(environ)
    if launched is None:
        return asked if isinstance(asked, int) and asked > 0 else 1
    variable, ranks = launched
    if variable == "WORLD_SIZE":
        return max(ranks // max(int(environ.get("LOCAL_WORLD_SIZE", ranks)), 1), 1)
    return int(environ.get("SLURM_NNODES", "1"))
