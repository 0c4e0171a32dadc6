"""The layers, experts and parameters that each rank holds, printed as a table at the start."""

import re
from dataclasses import dataclass

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch import nn

from project.callbacks.observed import strategy_of
from project.engine.mesh import gathered
from project.engine.parts import local_tensor
from project.planner.document.sheet import spans
from project.spec.layout import ParallelLayout

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
EXPERTS = re.compile(r"\.experts\.\w+$")


@dataclass(frozen=True)
class Placement:
    """A rank's coordinates, the number of its parameters, and the global indices of its layers and of its experts in
    each layer."""

    rank: int
    pp: int
    dp: int
    tp: int
    ep: int
    layers: list[int]
    experts: list[int]
    parameters: int


def placement(rank: int, layout: ParallelLayout, module: nn.Module, parameters: int) -> Placement:
    """The placement of `rank`, which holds `module` with `parameters` parameters."""
    layers, held = set(), 0
    for name, parameter in module.named_parameters():
        if layer := LAYER.search(name):
            layers.add(int(layer[1]))
        if EXPERTS.search(name):
            held = local_tensor(parameter).shape[0]
    where = layout.coordinates(rank)
    experts = list(range(where.ep * held, (where.ep + 1) * held))
    return Placement(rank, where.pp, where.dp, where.tp, where.ep, sorted(layers), experts, parameters)


class LayoutTable(Callback):
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        strategy = strategy_of(trainer)
        here = placement(trainer.global_rank, strategy.layout, pl_module, strategy.parameters_here())
        ranks = gathered(here)
        if trainer.is_global_zero:
            Console().print(layout_table(strategy.layout, ranks, str(trainer.precision)))


def layout_table(layout: ParallelLayout, ranks: list[Placement], precision: str) -> Table:
    """Returns a table that fits in 80 columns."""
    recomputed = "" if layout.recompute == "none" else f", {layout.recompute} recomputation"
    title = f"{layout}, {layout.schedule}, {layout.microbatches} microbatches{recomputed}, {precision}"
    table = Table("rank", "stage", "layers", "DP rank", "TP rank", "experts", "parameters", title=title)
    for column in table.columns:
        column.justify = "right"
    for rank in ranks:
        table.add_row(
            str(rank.rank),
            str(rank.pp),
            spans(rank.layers),
            str(rank.dp),
            str(rank.tp),
            spans(rank.experts),
            f"{rank.parameters:,}",
            end_section=rank.rank % (layout.dp * layout.tp) == layout.dp * layout.tp - 1,
        )
    return table
