"""Sheets of what a step does: what is sent, when each action runs, the expected performance, and claims about it."""

from collections.abc import Iterable
from typing import Any

from project.planner.document.derived import Derived
from project.planner.document.plan import Plan
from project.planner.document.sheet import Sheet
from project.planner.machine.source import source_of_results
from project.planner.timeline import Timeline
from project.spec.units import number

STRIP = 60  # characters of a timeline
MOST_STRIPS = 16  # on a terminal
SHOWN = {
    "step_time_s": "step time",
    "tokens_per_second": "throughput",
    "mfu": "MFU",
    "hfu": "HFU",
    "pipeline_utilization": "ranks compute",
    "forward_latency_s": "latency, forward",
    "latency_reduction": "latency saved against 1 GPU",
    "throughput_gain": "throughput over that of 1 GPU",
    "expert_utilization": "experts, random routing",
    "communication_bytes": "sent by a rank",
    "inter_node_bytes": "of that between nodes",
}
FRACTIONS = (
    *("mfu", "hfu", "bubble", "bubble_closed_form", "pipeline_utilization", "latency_reduction", "expert_utilization"),
    "experts_active",
)


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


def timeline_sheet(plan: Plan, whole: bool) -> Sheet:
    """A row for each pipeline rank: its actions on a strip of `STRIP` characters, F, B (I and W its halves), in lower
    case for odd microbatches, a dot where it waits."""
    found, timeline = plan.derived, plan.derived.timeline
    ranks = range(len(timeline.busy) if whole else min(len(timeline.busy), MOST_STRIPS))
    rows = [(str(rank), _strip(timeline, rank), f"{timeline.bubbles[rank]:.1%}") for rank in ranks]
    closed = plan.quantities["bubble_closed_form"]
    form = f"{closed.how.partition(' with ')[0]} = {closed.value:.1%} (derived)" if closed.value is not None else ""
    notes = [
        f"{found.step.layout.schedule}: {number(timeline.span, 's')}, idle {timeline.bubble:.1%} "
        f"({found.seconds_source}); {form or closed.how}",
        *_messages(found),
        *([] if len(rows) == len(timeline.busy) else [f"pp {len(rows)} and those behind it are in plan.md"]),
    ]
    return Sheet("Pipeline", ("pp>", "time", "idle>"), rows, "; ".join(notes))


def _strip(timeline: Timeline, rank: int) -> str:
    moments, span = ["."] * STRIP, timeline.span
    for timed in (timed for timed in timeline.actions if timed.rank == rank):
        first = int(timed.start / span * STRIP)
        last = max(first + 1, round(timed.end / span * STRIP))
        letter = timed.action.kind.lower() if timed.action.microbatch % 2 else timed.action.kind
        moments[first:last] = letter * (min(last, STRIP) - first)
    return "".join(moments)


def _messages(found: Derived) -> list[str]:
    """The delay of a message between stages, by link."""
    times = {hop.link: number(hop.seconds, "s") for hop in found.hops}
    across = [f"{hop.stage}-{hop.stage + 1}" for hop in found.hops if hop.link == "inter"]
    said = [f"{times['intra']} within a node"] if "intra" in times else []
    if across:
        which = ", ".join(across) if len(across) <= 4 else f"{len(across)} of {len(found.hops)}"
        said.append(f"{times['inter']} between two (stages {which})")
    return [f"a message arrives after {' and '.join(said)}"] if said else []


def performance_sheet(plan: Plan) -> Sheet:
    rows = [
        (name, quantity_text(key, of.value, of.unit), of.source, of.how)
        for key, name in SHOWN.items()
        for of in (plan.quantities[key],)
    ]
    return Sheet("Expected performance", ("", "value>", "source", "how"), rows)


def claims_sheet(claims: Iterable[dict[str, Any]]) -> Sheet:
    rows = [
        (
            claim["claim"],
            quantity_text(claim["quantity"], claim["found"], claim["unit"]),
            claim["source"],
            verdict_text(claim),
            claim["derivation"],
        )
        for claim in claims
    ]
    return Sheet("Claims", ("claim", "found>", "source", "verdict", "derivation"), rows)


def verdict_text(claim: dict[str, Any]) -> str:
    """The verdict; for a claim that fails also the factor between found and claimed, for a fraction the percentage
    points between them, and where there is no such factor the difference."""
    if claim["verdict"] != "fails":
        return {"unknown": "cannot be known"}.get(claim["verdict"], claim["verdict"])
    apart, factor = abs(claim["difference"]), claim["by"]
    if claim["quantity"] in FRACTIONS:
        return f"fails by {apart * 100:.1f} points"
    if factor is None or factor <= 0:
        return f"fails by {number(apart, claim['unit'])}"
    return f"fails: {factor:.3g}x" if factor >= 1 else f"fails: 1/{1 / factor:.3g}"


def quantity_text(name: str, value: float | None, unit: str) -> str:
    return f"{value:.1%}" if value is not None and name in FRACTIONS else number(value, unit)
