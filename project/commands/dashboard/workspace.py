"""The W&B workspace as code: which panels show what `logger=wandb` logs, in four sections."""

from collections.abc import Iterable

import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as ws
from wandb_workspaces.reports.v2.interface import PanelTypes

from project.loggers import STEP

DEGREES = ("pp", "dp", "tp", "ep", "etp", "microbatches")
RESULTS = ("step_time_s", "tokens_per_second", "bubble", "peak_memory_bytes", "communication_bytes", "val_loss")


def workspace(entity: str, project: str, layers: int, experts: int, ranks: int) -> ws.Workspace:
    """Nothing is sent before its `save`. Layers, experts and ranks that a run does not have leave gaps in panels."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Hybrid parallelism",
        sections=[
            section("Layout comparison", layout_comparison()),
            section("Expert health", expert_health(layers, experts)),
            section("Pipeline", pipeline(ranks)),
            section("System", system(ranks)),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=50),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group")], order=[ws.Ordering(ws.Summary("result/step_time_s"), ascending=True)]
        ),
    )


def section(name: str, contents: Iterable[PanelTypes]) -> ws.Section:
    return ws.Section(name=name, panels=list(contents), is_open=True)


def layout_comparison() -> list[PanelTypes]:
    chosen = [panels.ParallelCoordinatesPlotColumn(panels.Config(f"parallel.{name}"), name) for name in DEGREES]
    came_of_it = [
        panels.ParallelCoordinatesPlotColumn(panels.SummaryMetric(f"result/{name}"), name) for name in RESULTS
    ]
    return [
        panels.ParallelCoordinatesPlot(title="Choices and results", columns=[*chosen, *came_of_it]),
        panels.ScatterPlot(
            title="Time against memory",
            x=panels.SummaryMetric("result/peak_memory_bytes"),
            y=panels.SummaryMetric("result/step_time_s"),
        ),
        panels.BarPlot(title="Tokens per second", metrics=["result/tokens_per_second"]),
        panels.BarPlot(title="Step time, measured and planned", metrics=["result/step_time_s", "planned/step_time_s"]),
        panels.BarPlot(
            title="Memory, measured and planned", metrics=["result/peak_memory_bytes", "planned/peak_memory_bytes"]
        ),
        line("Training loss", "train/loss"),
        line("Validation loss", "val/loss"),
    ]


def expert_health(layers: int, experts: int) -> list[PanelTypes]:
    return [
        panels.MediaBrowser(title="Load by layer and expert", media_keys=["figures/expert_load"]),
        line(
            "Imbalance: the busiest expert over the mean",
            "train/expert_imbalance",
            "train/expert_imbalance_worst_layer",
        ),
        line("Balance loss", "train/aux_loss"),
        line("Dropped assignments", "train/dropped_fraction"),
        line("Router entropy, nats", *(f"router_entropy/layer_{layer}" for layer in range(layers))),
        *(
            line(f"Load, layer {layer}", *(f"expert_load/layer_{layer}/expert_{expert}" for expert in range(experts)))
            for layer in range(layers)
        ),
    ]


def pipeline(ranks: int) -> list[PanelTypes]:
    return [
        panels.MediaBrowser(title="Gantt chart", media_keys=["figures/pipeline"], num_columns=1),
        panels.MediaBrowser(title="Rank map", media_keys=["figures/rank_map"], num_columns=1),
        panels.BarPlot(title="Bubble, measured and planned", metrics=["result/bubble", "planned/bubble"]),
        panels.BarPlot(
            title="Bytes sent in a step, measured and planned",
            metrics=["result/communication_bytes", "planned/communication_bytes"],
        ),
        line("Step time, s", "train/step_time_s"),
        line("Step time by rank, s", *(f"step_time_s/rank_{rank}" for rank in range(ranks))),
    ]


def system(ranks: int) -> list[PanelTypes]:
    return [
        line("Tokens per second", "train/tokens_per_second"),
        line("MFU", "train/mfu"),
        line("Peak memory, largest rank", "memory/peak_bytes_largest_rank"),
        line("Peak memory by rank", *(f"memory/rank_{rank}" for rank in range(ranks))),
        line("Gradient norm", "train/grad_norm"),
        line("Learning rate", "train/lr"),
    ]


def line(title: str, *metrics: str) -> panels.LinePlot:
    return panels.LinePlot(title=title, x=STEP, y=list(metrics))
