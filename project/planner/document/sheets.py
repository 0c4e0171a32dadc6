"""The document as it is read: its sheets in order, the conditions that it holds for, and its validation checks."""

from collections.abc import Iterator

from project.planner.document.layout_sheets import memory_sheet, modules_sheet, rank_sheet
from project.planner.document.performance_sheets import (
    claims_sheet,
    communication_sheet,
    performance_sheet,
    timeline_sheet,
)
from project.planner.document.plan import Plan, as_json
from project.planner.document.sheet import Sheet
from project.planner.machine.source import source_of_figures, source_of_results, weakest
from project.spec.units import number


def sheets(plan: Plan, whole: bool = False) -> Iterator[Sheet]:
    """All sheets, which fit 80 columns; with `whole` they show every pipeline rank, however wide that is."""
    found, entries = plan.derived, as_json(plan)
    yield conditions(plan)
    yield rank_sheet(found, entries["ranks"])
    yield modules_sheet(found)
    yield memory_sheet(found, whole)
    yield communication_sheet(found, entries["communication"])
    yield timeline_sheet(plan, whole)
    yield performance_sheet(plan)
    yield validation(plan)
    if plan.claims:
        yield claims_sheet(plan.claims)


def conditions(plan: Plan) -> Sheet:
    step, cluster = plan.derived.step, plan.derived.cluster
    config, layout, total = step.config, step.layout, plan.quantities["parameters_total"]
    model = f"{config.num_layers} layers, {config.num_experts} experts (top-{config.top_k}), d_model {config.d_model}, "
    model += f"{config.num_heads} heads of {config.head_dim}, d_ff {config.d_ff}"
    active = plan.quantities["parameters_active"].value
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
            plan.quantities["gpus_available"].source,
        ),
        ("of each", number(cluster.memory_bytes, "B"), plan.quantities["memory_available"].source),
    ]
    note = (
        "measured: read off this machine; derived: computed from the configuration and from measured figures alone; "
        "assumed: rests on a figure that nobody measured here"
    )
    return Sheet("Deployment conditions", ("", "what", "source"), rows, note)


def validation(plan: Plan) -> Sheet:
    found, layout, cluster = plan.derived, plan.derived.step.layout, plan.derived.cluster
    held, room = max(of.total for of in found.memories), cluster.memory_bytes
    stages = [of.total for of in found.stages]
    uneven = max(stages) * len(stages) / sum(stages)
    idle, gain = found.timeline.bubble, plan.quantities["throughput_gain"].value or 0.0
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
