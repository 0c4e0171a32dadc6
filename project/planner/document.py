"""The strategy document: the sheets that a plan is read in, 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from project.model.cost import layer_flops_per_token
from project.planner.derive import Derived
from project.planner.plan_file import as_json
from project.planner.sheet import Sheet, number

MOST_RANKS = 64  # in a table; of more, one of each stage
STRIP = 60  # characters of a timeline


def sheets(found: Derived) -> Iterator[Sheet]:
    plan = as_json(found)
    yield conditions(found)
    yield rank_table(found, plan["ranks"])
    yield balance(found)
    yield memory_sheet(found)
    yield communication_sheet(plan["communication"])
    yield timeline_sheet(found)
    yield performance(found)
    yield validation(found)
    if found.claims:
        yield claims_sheet(found.claims)


def conditions(found: Derived) -> Sheet:
    step, cluster = found.step, found.cluster
    config, layout = step.config, step.layout
    rows = [
        (
            "model",
            f"{config.num_layers} layers, {config.num_experts} experts (top-{config.top_k}), d_model "
            f"{config.d_model}, {config.num_heads} heads of {config.head_dim}, d_ff {config.d_ff}",
        ),
        (
            "parameters",
            f"{found.quantities['parameters_total'].value:,} "
            f"({found.quantities['parameters_active'].value:,} active a token)",
        ),
        (
            "batch",
            f"{step.batch} sequences of {step.seq_len} tokens, {step.accumulate} batch(es) a step; {step.precision}",
        ),
        ("layout", f"{layout}; replicas {layout.dp_mode}"),
        (
            "pipeline",
            f"{layout.schedule}, {layout.microbatches} microbatches, {layout.virtual_stages} stage(s) a rank, "
            f"recompute {layout.recompute}",
        ),
        (
            "cluster",
            f"{cluster.name}: {cluster.nodes} x {cluster.gpus_per_node} GPUs of {number(cluster.memory_bytes, 'B')}",
        ),
    ]
    return Sheet("Deployment conditions", ("", "what"), rows)


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
    note = "" if shown is ranks else f"the first of each stage's {of_stage} ranks"
    return Sheet("Ranks", columns, rows, note, ends)


def balance(found: Derived) -> Sheet:
    """Each stage's share of the forward FLOPs, and its seconds."""
    step = found.step
    costs = [
        sum(layer_flops_per_token(step.config, step.seq_len, layer) for layer in part.layers)
        + part.last * 2 * step.config.vocab_size * step.config.d_model
        for part in step.parts
    ]
    mean = sum(costs) / len(costs)
    rows = [
        (
            str(part.stage),
            modules(found, part),
            f"{cost / mean:.2f}",
            number(seconds.forward, "s"),
            number(seconds.inputs + seconds.weights, "s"),
        )
        for part, cost, seconds in zip(step.parts, costs, found.stages, strict=True)
    ]
    return Sheet(
        "Modules and compute",
        ("stage>", "modules", "FLOPs/mean>", "forward>", "backward>"),
        rows,
        f"busiest over mean {max(costs) / mean:.2f} (derived); seconds a microbatch are assumed",
    )


def modules(found: Derived, part: Any) -> str:
    config, layout = found.step.config, found.step.layout
    with_experts = len([layer for layer in part.layers if layer in config.moe_layers])
    held = [f"{len(part.layers)} attention / {layout.tp}"]
    if with_experts:
        held.append(f"{with_experts * config.num_experts // layout.ep} experts / {layout.etp}")
    if with_experts < len(part.layers):
        held.append(f"{len(part.layers) - with_experts} dense / {layout.tp}")
    ends = ["embedding"] * part.first + ["head"] * part.last
    return ", ".join([*held, *ends])


def memory_sheet(found: Derived) -> Sheet:
    """By pipeline rank; the ranks of one hold as much."""
    pp = range(len(found.memories)) if len(found.memories) <= 4 else [0, 1, len(found.memories) - 1]
    names = ("weights", "gradients", "optimizer", "activations", "logits", "recomputation", "buffers", "framework")
    rows = [
        (name, *(number(getattr(found.memories[rank], name), "B") for rank in pp), source)
        for name, source in zip(names, (*("derived",) * 7, "assumed"), strict=True)
    ]
    for module in sorted({module for rank in pp for module in found.activations[rank]} - {"logits"}):
        sizes = (number(found.activations[rank].get(module, 0), "B") for rank in pp)
        rows.insert(4 + len(rows) - 8, (f"  {module}", *sizes, "derived"))
    rows.append(("total", *(number(found.memories[rank].total, "B") for rank in pp), ""))
    columns = ("bytes of a rank", *(f"pp {rank}>" for rank in pp), "source")
    return Sheet("Memory", columns, rows, f"of {number(found.cluster.memory_bytes, 'B')} (assumed)", {len(rows) - 2})


def communication_sheet(table: dict[str, dict[str, dict[str, Any]]]) -> Sheet:
    rows = [
        (
            axis,
            collective,
            f"{entry['calls']:,}",
            number(entry["bytes"], "B"),
            number(entry["seconds"], "s"),
            entry["link"],
        )
        for axis, collectives in table.items()
        for collective, entry in collectives.items()
    ]
    return Sheet(
        "Communication of a step, busiest rank",
        ("axis", "collective", "calls>", "sent>", "seconds>", "link"),
        rows or [("-", "nothing is sent", "0", "0 B", "0 s", "-")],
        "calls and bytes derived, seconds assumed",
    )


def timeline_sheet(found: Derived) -> Sheet:
    """Each rank's actions in `STRIP` moments: F, B (I, W its halves), small for every other microbatch, a dot where it
    waits."""
    timeline, rows = found.timeline, []
    for rank in range(len(timeline.busy)):
        own = [timed for timed in timeline.actions if timed.rank == rank]
        strip = ["."] * STRIP
        for timed in own:
            first = int(timed.start / timeline.span * STRIP)
            last = max(first + 1, round(timed.end / timeline.span * STRIP))
            letter = timed.action.kind.lower() if timed.action.microbatch % 2 else timed.action.kind
            strip[first:last] = letter * (min(last, STRIP) - first)
        rows.append((str(rank), "".join(strip), f"{timeline.bubbles[rank]:.1%}"))
    layout = found.step.layout
    closed = found.quantities["bubble_closed_form"].value or 0
    note = (
        f"{layout.schedule}: {number(timeline.span, 's')}, idle {timeline.bubble:.1%} (assumed); "
        f"(p-1)/(vm+p-1) = {closed:.1%} (derived)"
    )
    return Sheet("Pipeline", ("pp>", "time", "idle>"), rows if len(rows) <= 16 else rows[:16], note)


SHOWN = {
    "step_time_s": "step time",
    "tokens_per_second": "throughput",
    "mfu": "MFU",
    "hfu": "HFU",
    "pipeline_utilization": "ranks compute",
    "forward_latency_s": "latency, forward",
    "latency_reduction": "latency less than on 1 GPU by",
    "throughput_gain": "throughput over that of 1 GPU",
    "expert_utilization": "experts, random routing",
    "communication_bytes": "sent by a rank",
    "inter_node_bytes": "of that between nodes",
}


def performance(found: Derived) -> Sheet:
    rows = [
        (name, shown(key, of.value, of.unit), of.source, of.how)
        for key, name in SHOWN.items()
        for of in (found.quantities[key],)
    ]
    return Sheet("Expected performance", ("", "value>", "source", "how"), rows)


def validation(found: Derived) -> Sheet:
    layout, cluster = found.step.layout, found.cluster
    held, room = max(of.total for of in found.memories), cluster.memory_bytes
    seconds = [of.total for of in found.stages]
    uneven = max(seconds) * len(seconds) / sum(seconds)
    idle, gain = found.timeline.bubble, found.quantities["throughput_gain"].value or 0.0
    per_node = cluster.gpus_per_node
    checks = [
        ("GPUs", layout.world_size <= cluster.gpus, f"{layout.world_size} used, {cluster.gpus} available"),
        ("memory within limits", held <= room, f"{number(held, 'B')} of {number(room, 'B')} on the largest rank"),
        ("tp within a node", per_node % layout.tp == 0, f"tp {layout.tp}, {per_node} GPUs a node"),
        ("stages balanced", uneven <= 1.1, f"the slowest takes {uneven:.2f} of the mean"),
        ("ranks compute 90%", idle <= 0.1, f"idle {idle:.1%}"),
        ("faster than one GPU", gain > 1, f"x{gain:.2f} on {layout.world_size} GPUs"),
    ]
    rows = [(name, "yes" if passes else "NO", said) for name, passes, said in checks]
    return Sheet("Validation checks", ("check", "", "found"), rows)


def claims_sheet(claims: Iterable[dict[str, Any]]) -> Sheet:
    rows = [
        (claim["claim"], shown(claim["quantity"], claim["found"], claim["unit"]), verdict(claim), claim["derivation"])
        for claim in claims
    ]
    return Sheet("Claims", ("claim", "found>", "verdict", "derivation"), rows)


def verdict(claim: dict[str, Any]) -> str:
    """With how many times too much or too little, or by how many percentage points a fraction misses."""
    if claim["verdict"] != "fails":
        return {"unknown": "cannot be known"}.get(claim["verdict"], claim["verdict"])
    if claim["quantity"] in FRACTIONS:
        return f"fails by {abs(claim['found'] - claim['claimed']) * 100:.1f} points"
    if not (factor := claim["by"]):
        return "fails: nothing"
    return f"fails: {factor:.3g}x" if factor >= 1 else f"fails: 1/{1 / factor:.3g}"


FRACTIONS = (
    *("mfu", "hfu", "bubble", "bubble_closed_form", "pipeline_utilization", "latency_reduction", "expert_utilization"),
    "experts_active",
)


def shown(name: str, value: float | None, unit: str) -> str:
    return f"{value:.1%}" if value is not None and name in FRACTIONS else number(value, unit)


def spans(numbers: list[int]) -> str:
    """Runs of consecutive numbers by their ends: `0-2, 5`."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)) or "-"
