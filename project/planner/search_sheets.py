"""What a search found, as the sheets of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from project.parallel.layout import ParallelLayout
from project.planner.cluster import Cluster
from project.planner.search import Candidate, Found, Objective, capacity, overrides
from project.planner.sensitivity import Turn, unstable
from project.planner.sheet import Sheet, number

SHOWN = 10
COMMANDS = "To run them"
AS_WELL = 1.05  # fewer GPUs do as well when they take no longer than this


@dataclass(frozen=True)
class Searched:
    """`asked` is the layout of the configuration, whether or not it fits; `fewer` are the best on so many GPUs;
    `tokens` are of a step; `prefix` is the command line that a layout's overrides are added to."""

    cluster: Cluster
    objective: Objective
    asked: Candidate
    found: Found
    fewer: Sequence[tuple[int, Found]]
    turns: Sequence[Turn]
    tokens: int
    prefix: str

    def cost(self, one: Candidate) -> str:
        """Of a million tokens: dollars where the cluster's file has a price, else seconds of a GPU."""
        seconds = one.seconds * one.layout.world_size / self.tokens * 1e6
        price = self.cluster.price_per_hour
        return f"{seconds:,.3g} GPU s" if price is None else f"${seconds * price / 3600:,.3g}"


def search_sheets(searched: Searched) -> Iterator[Sheet]:
    yield best(searched)
    yield commands(searched)
    yield fewer(searched)
    yield pareto(searched)
    yield stability(searched)


def best(searched: Searched) -> Sheet:
    found, rows = searched.found, []
    for place, one in enumerate(found.best[:SHOWN], 1):
        rows.append((str(place), *_cells(searched, one)))
    asked = searched.asked
    fits = asked.memory <= capacity(searched.cluster, asked.layout.world_size)
    rows.append(("asked" if fits else "asked, does not fit", *_cells(searched, asked)))
    note = (
        f"{found.tried:,} timed, {found.left_out:,} left out for their memory, in {found.seconds:.1f} s of a core; "
        f"ranked by {searched.objective}"
    )
    columns = ("", "layout", "pipeline", "step>", "memory>", "1M tokens>")
    return Sheet("The best layouts", columns, rows, note, {min(SHOWN, len(found.best)) - 1})


def _cells(searched: Searched, one: Candidate) -> tuple[str, ...]:
    return (
        degrees(one.layout),
        pipeline(one.layout),
        number(one.seconds, "s"),
        number(one.memory, "B"),
        searched.cost(one),
    )


def degrees(layout: ParallelLayout) -> str:
    shards = " sharded" if layout.dp_mode == "shard" else ""
    return f"pp{layout.pp} dp{layout.dp}{shards} tp{layout.tp} ep{layout.ep} etp{layout.etp}"


def pipeline(layout: ParallelLayout) -> str:
    stages = f" x{layout.virtual_stages}" if layout.virtual_stages > 1 else ""
    again = "" if layout.recompute == "none" else f", recompute {layout.recompute}"
    return (
        f"{layout.schedule}{stages}, {layout.microbatches} microbatch{'es' if layout.microbatches > 1 else ''}{again}"
    )


def commands(searched: Searched) -> Sheet:
    rows = [
        (str(place), f"{searched.prefix} {overrides(one.layout)}")
        for place, one in enumerate(searched.found.best[:SHOWN], 1)
    ]
    return Sheet(COMMANDS, ("", "command"), rows)


def fewer(searched: Searched) -> Sheet:
    best = searched.found.best[0]
    rows = [(str(best.layout.world_size), degrees(best.layout), number(best.seconds, "s"), searched.cost(best), "")]
    enough = best.layout.world_size
    for gpus, there in searched.fewer:
        if not there.best:
            rows.append((str(gpus), "none fits", "", "", ""))
            continue
        one = there.best[0]
        slower = one.seconds / best.seconds
        rows.append((str(gpus), degrees(one.layout), number(one.seconds, "s"), searched.cost(one), f"x {slower:.2f}"))
        if slower <= AS_WELL:
            enough = gpus
    verdict = (
        f"{enough} GPUs do as well (within {AS_WELL - 1:.0%})"
        if enough < best.layout.world_size
        else "fewer GPUs take longer"
    )
    return Sheet("Fewer GPUs", ("GPUs>", "best layout", "step>", "1M tokens>", "time>"), rows, verdict)


def pareto(searched: Searched) -> Sheet:
    rows = [
        (degrees(one.layout), pipeline(one.layout), number(one.seconds, "s"), number(one.memory, "B"))
        for one in searched.found.fronts
    ]
    note = "Nothing that was timed is both as fast and smaller."
    return Sheet("Time against memory", ("layout", "pipeline", "step>", "memory>"), rows, note)


def stability(searched: Searched) -> Sheet:
    lost = unstable(searched.turns)
    rows = [
        (
            f"{turn.quantity}, {turn.end} end",
            f"{degrees(turn.winner)}, {pipeline(turn.winner)}",
            number(turn.seconds, "s"),
            f"{turn.loses:+.1%}",
        )
        for turn in searched.turns
    ]
    named = ", ".join(sorted({turn.quantity for turn in lost}))
    note = (
        f"unstable: the best as stated is beaten within the stated interval of {named}"
        if lost
        else "stable: the best as stated is not beaten by 1 % within any stated interval"
    )
    return Sheet("Where the ranking turns over", ("at", "best there", "step>", "the stated best>"), rows, note)


def as_entries(searched: Searched) -> dict[str, Any]:
    """Plain values, for JSON."""

    def entry(one: Candidate) -> dict[str, Any]:
        command = f"{searched.prefix} {overrides(one.layout)}"
        return {"layout": asdict(one.layout), "seconds": one.seconds, "memory": one.memory, "command": command}

    return {
        "cluster": searched.cluster.name,
        "objective": searched.objective,
        "tried": searched.found.tried,
        "left_out": searched.found.left_out,
        "best": [entry(one) for one in searched.found.best[:SHOWN]],
        "asked": entry(searched.asked),
        "front": [entry(one) for one in searched.found.fronts],
        "fewer": {str(gpus): entry(there.best[0]) if there.best else None for gpus, there in searched.fewer},
        "turns": [{**turn._asdict(), "winner": asdict(turn.winner)} for turn in searched.turns],
        "unstable": bool(unstable(searched.turns)),
    }
