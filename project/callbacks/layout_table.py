"""Prints at the start which layers, experts and parameters each rank holds."""

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table

from project.callbacks.observed import gathered, strategy_of
from project.observe.placement import Placement, placement
from project.planner.document.sheet import spans
from project.spec.layout import ParallelLayout


class LayoutTable(Callback):
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        strategy = strategy_of(trainer)
        here = placement(trainer.global_rank, strategy.layout, pl_module, strategy.parameters_here())
        ranks = gathered(here)
        if trainer.is_global_zero:
            Console().print(layout_table(strategy.layout, ranks))


def layout_table(layout: ParallelLayout, ranks: list[Placement]) -> Table:
    """Returns a table that fits in 80 columns."""
    title = f"{layout}, {layout.schedule}, {layout.microbatches} microbatches"
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
