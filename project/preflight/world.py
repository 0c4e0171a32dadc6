"""Faults of a number of ranks that a launcher has started and the layout does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legal_values import said
from project.spec.legality.layouts import legal_layouts
from project.spec.model import ModelConfig

_NAMED = 4  # layouts in a message


def world_size_faults(
    layout: ParallelLayout, model: ModelConfig, batch: tuple[int, int], environ: Mapping[str, str]
) -> Iterator[Fault]:
    launched = launched_ranks(environ)
    if launched is not None and launched[1] != layout.world_size:
        variable, ranks = launched
        command = "torchrun" if variable == "WORLD_SIZE" else "srun"
        message = (
            f"needs parallel.pp x parallel.dp x parallel.tp = {layout.world_size} ranks, but {command} started {ranks} "
            f"({variable}={ranks}); start {layout.world_size}, or use {named_layouts(layout, model, batch, ranks)}"
        )
        yield Fault("parallel", degrees(layout), message)


def launched_ranks(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """The launcher's variable and the number of ranks in it; None where this process starts the ranks itself."""
    if "TORCHELASTIC_RUN_ID" in environ and environ.get("WORLD_SIZE", "").isdigit():
        return "WORLD_SIZE", int(environ["WORLD_SIZE"])
    # An interactive shell inside an allocation has the variables too, but nothing was launched; as Lightning sees it.
    interactive = environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if environ.get("SLURM_NTASKS", "").isdigit() and not interactive:
        return "SLURM_NTASKS", int(environ["SLURM_NTASKS"])
    return None


def named_layouts(layout: ParallelLayout, model: ModelConfig, batch: tuple[int, int], ranks: int) -> str:
    """Legal layouts as overrides, for that many ranks or, where none is legal, for the next smaller number."""
    if any(type(size) is not int or size < 1 for size in batch):
        return "fewer"
    for world_size in range(ranks, 0, -1):
        layouts = legal_layouts(model, world_size, *batch, like=layout)
        if layouts:
            by_shape: dict[tuple[int, int, int], ParallelLayout] = {}
            for found in layouts:  # the best way of placing the experts comes first
                by_shape.setdefault((found.pp, found.dp, found.tp), found)
            named = [_typed(found, like=layout) for found in list(by_shape.values())[:_NAMED]]
            return f"one that is legal for {world_size}: {', or '.join(named)}"
    return "another model: none is legal for this one"


def degrees(layout: ParallelLayout) -> str:
    return f"pp{layout.pp}_dp{layout.dp}_tp{layout.tp}"


def _typed(layout: ParallelLayout, like: ParallelLayout) -> str:
    """The layout as overrides, without degrees of 1 and without keys that are as in `like`."""
    always = ("pp", "tp", "ep")
    names = [name for name in ("pp", "dp", "tp", "ep", "etp") if name in always or getattr(layout, name) > 1]
    names += [name for name in ("microbatches", "partition") if getattr(layout, name) != getattr(like, name)]
    return " ".join(f"parallel.{name}={said(getattr(layout, name))}" for name in names)
