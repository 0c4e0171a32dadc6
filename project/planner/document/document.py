"""The strategy document: the sheets that a plan is read in, 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from project.planner.document.derive import Derived
from project.planner.document.memory_sheet import memory_sheet
from project.planner.document.performance_sheets import claims_sheet, performance
from project.planner.document.pipeline_sheets import balance, communication_sheet, timeline_sheet
from project.planner.document.plan_file import as_json
from project.planner.document.sheet import Sheet, number
from project.planner.machine.source import source_of_figures, source_of_results, weakest

MOST_RANKS = 64  # in a table; of more, one of each stage


def sheets(found: Derived, whole: bool = False) -> Iterator[Sheet]:
    """`whole` leaves no pipeline rank out, however wide that is."""
    plan = as_json(found)
    yield conditions(found)
    yield rank_table(found, plan["ranks"])
    yield balance(found)
    yield memory_sheet(found, whole)
    yield communication_sheet(found, plan["communication"])
    yield timeline_sheet(found, whole)
    yield performance(found)
    yield validation(found)
    if found.claims:
        yield claims_sheet(found.claims)


def conditions(found: Derived) -> Sheet:
    step, cluster = found.step, found.cluster
    config, layout, total = step.config, step.layout, found.quantities["parameters_total"]
    model = f"{config.num_layers} layers, {config.num_experts} experts (top-{config.top_k}), d_model {config.d_model}, "
    model += f"{config.num_heads} heads of {config.head_dim}, d_ff {config.d_ff}"
    active = found.quantities["parameters_active"].value
    batch = f"{step.batch} sequences of {step.seq_len} tokens, {step.accumulate} batch(es) a step; {step.precision}"
    pipeline = f"{layout.schedule}, {layout.microbatches} microbatches, {layout.virtual_stages} stage(s) a rank, "
    rows = [
        ("model", model, "derived"),
        ("parameters", f"{total.value:,} ({active:,} active a token)", total.source),
        ("batch", batch, "derived"),
        ("layout", f"{layout}; replicas {layout.dp_mode}", "derived"),
        ("pipeline", pipeline + f"recompute {layout.recompute}", "derived"),
        (
            "cluster",
            f"{cluster.name}: {cluster.nodes} x {cluster.gpus_per_node} GPUs",
            found.quantities["gpus_available"].source,
        ),
        ("of each", number(cluster.memory_bytes, "B"), found.quantities["memory_available"].source),
    ]
    note = "measured: read off the machine; derived: follows from that, or from the configuration; assumed: from more"
    return Sheet("Deployment conditions", ("", "what", "source"), rows, note)


def rank_table(found: Derived, ranks: list[dict[str, Any]]) -> Sheet:
    layout = found.step.layout
    of_stage = layout.dp * layout.tp
    shown = ranks if len(ranks) <= MOST_RANKS else ranks[::of_stage]
    columns = ("rank>", "node>", "gpu>", "stages>", "layers>", "DP>", "TP>", "experts>", "parameters>")
    rows = [
        (
            str(rank["rank"]),
            str(rank["node"]),
            str(rank["gpu"]),
            spans(rank["stages"]),
            spans(rank["layers"]),
            str(rank["dp"]),
            str(rank["tp"]),
            spans(rank["experts"]),
            f"{rank['parameters']:,}",
        )
        for rank in shown
    ]
    ends = set(range(of_stage - 1, len(rows), of_stage)) if shown is ranks else set()
    note = f"derived; node and gpu {source_of_results(found.cluster, 'gpus_per_node')}"
    note += "" if shown is ranks else f"; the first of each stage's {of_stage} ranks, all are in plan.json"
    return Sheet("Ranks", columns, rows, note, ends)


def validation(found: Derived) -> Sheet:
    layout, cluster = found.step.layout, found.cluster
    held, room = max(of.total for of in found.memories), cluster.memory_bytes
    stages = [of.total for of in found.stages]
    uneven = max(stages) * len(stages) / sum(stages)
    idle, gain = found.timeline.bubble, found.quantities["throughput_gain"].value or 0.0
    per_node, seconds = cluster.gpus_per_node, found.seconds_source
    fits = weakest(source_of_figures(cluster, "memory_bytes"), source_of_results(cluster, "reserved_bytes"))
    placed, there = source_of_results(cluster, "gpus_per_node"), source_of_results(cluster, "nodes", "gpus_per_node")
    in_all = f"{number(held, 'B')} of {number(room, 'B')} on the largest rank"
    checks = [
        ("GPUs", layout.world_size <= cluster.gpus, f"{layout.world_size} used, {cluster.gpus} available", there),
        ("memory within limits", held <= room, in_all, fits),
        ("tp within a node", per_node % layout.tp == 0, f"tp {layout.tp}, {per_node} GPUs a node", placed),
        ("stages balanced", uneven <= 1.1, f"the slowest takes {uneven:.2f} of the mean", seconds),
        ("ranks compute 90%", idle <= 0.1, f"idle {idle:.1%}", seconds),
        ("faster than one GPU", gain > 1, f"x{gain:.2f} on {layout.world_size} GPUs", seconds),
    ]
    rows = [(name, "yes" if passes else "NO", said, source) for name, passes, said, source in checks]
    return Sheet("Validation checks", ("check", "", "found", "source"), rows)


def spans(numbers: list[int]) -> str:
    """Runs of consecutive numbers by their ends: `0-2, 5`."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)) or "-"
