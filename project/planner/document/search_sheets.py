"""What a search found, as the sheets of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from project.planner.document.sheet import Sheet, number
from project.planner.search.candidate import Candidate, Objective, value
from project.planner.search.fewer import AS_WELL, REACH
from project.planner.search.search import WANTED, Found
from project.planner.search.searched import Searched
from project.planner.search.sensitivity import Turn, applying, unstable
from project.spec.layout import ParallelLayout

COMMANDS = "To run them"
WORSE = {"time": "take longer", "memory": "hold more", "cost": "cost more a token"}
NEAR = {"time": "time of the fastest", "memory": "memory of the smallest (reserved bytes apart)", "cost": "least cost"}


def search_sheets(searched: Searched) -> Iterator[Sheet]:
    yield best(searched)
    yield commands(searched)
    yield fewer(searched)
    yield pareto(searched)
    yield stability(searched)


def best(searched: Searched) -> Sheet:
    rows = []
    for place, one in enumerate(searched.best[:WANTED], 1):
        rows.append((str(place), *_cells(searched, one)))
    asked = searched.asked
    fits = asked.memory <= searched.cluster.memory_per_rank(asked.layout.world_size)
    rows.append(("asked" if fits else "asked, does not fit", *_cells(searched, asked)))
    timed, weighed = (sum(getattr(there, count) for there in searched.every) for count in ("timed", "weighed"))
    note = (
        f"ranked by {searched.objective}; {timed:,} timed and {weighed:,} weighed on these and fewer GPUs, in "
        f"{sum(there.seconds for there in searched.every):.1f} s of a core; no others that fit come within "
        f"{REACH[searched.objective]:g} times the {NEAR[searched.objective]}; memory is exact, "
        f"{number(searched.cluster.reserved_bytes, 'B')} reserved included"
    )
    columns = ("", "layout", "pipeline", "step>", "memory>", "1M tokens>")
    return Sheet("The best layouts", columns, rows, note, {len(rows) - 2})


def _cells(searched: Searched, one: Candidate) -> tuple[str, ...]:
    return (
        degrees(one.layout),
        pipeline(one.layout),
        number(one.seconds, "s"),
        memory(one),
        searched.cost(one),
    )


def memory(one: Candidate) -> str:
    """To the megabyte: what is reserved is most of it for a small model."""
    return f"{one.memory / 1e9:,.3f} GB"


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
    rows = [(str(place), searched.command(one)) for place, one in enumerate(searched.best[:WANTED], 1)]
    return Sheet(COMMANDS, ("", "command"), rows)


def fewer(searched: Searched) -> Sheet:
    """Each number of GPUs that was tried, against all of them."""
    objective, of_all = searched.objective, value(searched.found.best[0], searched.objective)
    rows = []
    for gpus, there in ((searched.cluster.gpus, searched.found), *searched.fewer):
        if there.best:
            one = there.best[0]
            _, _, *numbers = _cells(searched, one)
            rows.append((str(gpus), degrees(one.layout), *numbers, f"x {value(one, objective) / of_all:.2f}"))
        else:
            rows.append((str(gpus), why_none(there, objective), "", "", "", ""))
    columns = ("GPUs>", "best layout", "step>", "memory>", "1M tokens>", f"{objective}>")
    return Sheet("Fewer GPUs", columns, rows, verdict(searched))


def why_none(there: Found, objective: Objective) -> str:
    if not there.splits:
        return "none is legal"
    return f"none that fits is within {REACH[objective]:g} times the best" if there.cut else "none fits"


def verdict(searched: Searched) -> str:
    """By the objective, of what was tried."""
    if not searched.fewer:
        return "There are no fewer than one."
    objective, of_all = searched.objective, value(searched.found.best[0], searched.objective)
    values = {gpus: value(there.best[0], objective) for gpus, there in searched.fewer if there.best}
    tried = f"tried: {', '.join(str(gpus) for gpus, _ in searched.fewer)}"
    least = min(values, key=values.__getitem__, default=0)
    if objective == "cost" and values and values[least] < of_all:
        return f"A token costs least on {_gpus(least)}; {tried}."
    enough = [gpus for gpus, its in values.items() if its <= AS_WELL * of_all]
    if enough:
        return f"{_gpus(min(enough))} would do as well (within {AS_WELL - 1:.0%}); {tried}."
    none = [there for _, there in searched.fewer if there.splits and not there.best]
    worse = [WORSE[objective]] if values or any(there.cut for there in none) else []
    worse += ["do not fit"] if any(not there.cut for there in none) else []
    return f"Fewer GPUs {' or '.join(worse) or 'have no legal layout'}; {tried}."


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' if number > 1 else ''}"


def pareto(searched: Searched) -> Sheet:
    rows = [
        (degrees(one.layout), pipeline(one.layout), number(one.seconds, "s"), memory(one))
        for one in searched.found.fronts
    ]
    found, gpus = searched.found, searched.cluster.gpus
    note = (
        f"On {gpus} GPUs nothing within {found.slack:g} times the {NEAR[searched.objective]} is both as fast and "
        "smaller. All are timed action by action where that is not too many."
    )
    return Sheet("Time against memory", ("layout", "pipeline", "step>", "memory>"), rows, note)


def stability(searched: Searched) -> Sheet:
    lost = unstable(searched.turns)
    rows = [
        (
            f"{turn.quantity}, {turn.end} end",
            f"{degrees(turn.winner.layout)}, {pipeline(turn.winner.layout)}",
            number(turn.winner.seconds, "s"),
            f"{turn.loses:+.1%}",
        )
        for turn in searched.turns
    ]
    columns = ("at", "best there", "step>", "the stated best>")
    return Sheet(
        "Where the ranking turns over", columns, rows, " ".join([*_stable(searched, lost), *_absent(searched)])
    )


def _stable(searched: Searched, lost: Sequence[Turn]) -> Iterator[str]:
    intervals = applying(searched.cluster, searched.objective)
    if lost:
        named = ", ".join(sorted({turn.quantity for turn in lost}))
        yield f"unstable: by {searched.objective} the best as stated is beaten within the stated interval of {named}."
    elif intervals:
        yield f"stable: the best as stated is not beaten by 1 % within the stated intervals of {', '.join(intervals)}."
    else:
        yield "Nothing can turn over: memory depends on none of the stated intervals."


def _absent(searched: Searched) -> Iterator[str]:
    if searched.cluster.host is not None and searched.objective != "memory":
        yield (
            "Launch cost and bandwidth do not apply where ranks share cores: both are part of what was measured of a "
            "rank's program, for which no interval is stated."
        )
