"""The document's stages: what each computes, what is sent, and when each action runs."""

from __future__ import annotations

from typing import Any

from project.planner.document.derive import Derived
from project.planner.document.sheet import Sheet, number
from project.planner.machine.source import source_of_results
from project.spec.cost import layer_flops_per_token
from project.spec.partition import Part

STRIP = 60  # characters of a timeline
MOST_ROWS = 16  # of it on a terminal


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
        f"busiest over mean {max(costs) / mean:.2f}; derived, the seconds of a microbatch {found.seconds_source}",
    )


def modules(found: Derived, part: Part) -> str:
    config, layout = found.step.config, found.step.layout
    with_experts = len([layer for layer in part.layers if layer in config.moe_layers])
    held = [f"{len(part.layers)} attention / {layout.tp}"]
    if with_experts:
        held.append(f"{with_experts * config.num_experts // layout.ep} experts / {layout.etp}")
    if with_experts < len(part.layers):
        held.append(f"{len(part.layers) - with_experts} dense / {layout.tp}")
    ends = ["embedding"] * part.first + ["head"] * part.last
    return ", ".join([*held, *ends])


def communication_sheet(found: Derived, table: dict[str, dict[str, dict[str, Any]]]) -> Sheet:
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
    placed = source_of_results(found.cluster, "gpus_per_node")
    return Sheet(
        "Communication of a step, busiest rank",
        ("axis", "collective", "calls>", "sent>", "seconds>", "link"),
        rows or [("-", "nothing is sent", "0", "0 B", "0 s", "-")],
        f"calls and bytes derived, seconds {found.seconds_source}, links {placed}",
    )


def timeline_sheet(found: Derived, whole: bool) -> Sheet:
    """Each rank's actions in `STRIP` moments: F, B (I, W its halves), small for every other microbatch, a dot where it
    waits."""
    timeline = found.timeline
    ranks = range(len(timeline.busy) if whole else min(len(timeline.busy), MOST_ROWS))
    rows = [(str(rank), strip(found, rank), f"{timeline.bubbles[rank]:.1%}") for rank in ranks]
    closed = found.quantities["bubble_closed_form"]
    form = f"{closed.how.partition(' with ')[0]} = {closed.value:.1%} (derived)" if closed.value is not None else ""
    notes = [
        f"{found.step.layout.schedule}: {number(timeline.span, 's')}, idle {timeline.bubble:.1%} "
        f"({found.seconds_source}); {form or closed.how}",
        *messages(found),
        *([] if len(rows) == len(timeline.busy) else [f"pp {len(rows)} and those behind it are in plan.md"]),
    ]
    return Sheet("Pipeline", ("pp>", "time", "idle>"), rows, "; ".join(notes))


def strip(found: Derived, rank: int) -> str:
    moments, span = ["."] * STRIP, found.timeline.span
    for timed in (timed for timed in found.timeline.actions if timed.rank == rank):
        first = int(timed.start / span * STRIP)
        last = max(first + 1, round(timed.end / span * STRIP))
        letter = timed.action.kind.lower() if timed.action.microbatch % 2 else timed.action.kind
        moments[first:last] = letter * (min(last, STRIP) - first)
    return "".join(moments)


def messages(found: Derived) -> list[str]:
    """How much later they arrive at the next stage, by link."""
    times = {hop.link: number(hop.seconds, "s") for hop in found.hops}
    across = [f"{hop.stage}-{hop.stage + 1}" for hop in found.hops if hop.link == "inter"]
    said = [f"{times['intra']} within a node"] if "intra" in times else []
    if across:
        which = ", ".join(across) if len(across) <= 4 else f"{len(across)} of {len(found.hops)}"
        said.append(f"{times['inter']} between two (stages {which})")
    return [f"a message arrives after {' and '.join(said)}"] if said else []
