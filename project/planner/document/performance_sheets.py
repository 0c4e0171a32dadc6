"""What the document promises: its performance, and the claims of somebody's document beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from project.planner.document.derive import Derived
from project.planner.document.sheet import Sheet, number

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
FRACTIONS = (
    *("mfu", "hfu", "bubble", "bubble_closed_form", "pipeline_utilization", "latency_reduction", "expert_utilization"),
    "experts_active",
)


def performance(found: Derived) -> Sheet:
    rows = [
        (name, shown(key, of.value, of.unit), of.source, of.how)
        for key, name in SHOWN.items()
        for of in (found.quantities[key],)
    ]
    return Sheet("Expected performance", ("", "value>", "source", "how"), rows)


def claims_sheet(claims: Iterable[dict[str, Any]]) -> Sheet:
    rows = [
        (
            claim["claim"],
            shown(claim["quantity"], claim["found"], claim["unit"]),
            claim["source"],
            verdict(claim),
            claim["derivation"],
        )
        for claim in claims
    ]
    return Sheet("Claims", ("claim", "found>", "source", "verdict", "derivation"), rows)


def verdict(claim: dict[str, Any]) -> str:
    """With how many times too much or too little; by how many percentage points a fraction misses; and where there is
    no such factor, by how much."""
    if claim["verdict"] != "fails":
        return {"unknown": "cannot be known"}.get(claim["verdict"], claim["verdict"])
    apart, factor = abs(claim["difference"]), claim["by"]
    if claim["quantity"] in FRACTIONS:
        return f"fails by {apart * 100:.1f} points"
    if factor is None or factor <= 0:
        return f"fails by {number(apart, claim['unit'])}"
    return f"fails: {factor:.3g}x" if factor >= 1 else f"fails: 1/{1 / factor:.3g}"


def shown(name: str, value: float | None, unit: str) -> str:
    return f"{value:.1%}" if value is not None and name in FRACTIONS else number(value, unit)
