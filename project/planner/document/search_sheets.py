"""The outcome of a search as sheets."""

from collections.abc import Iterator, Sequence

from project.planner.document.sheet import Sheet
from project.planner.search.branch_and_bound import WANTED, Found
from project.planner.search.candidate import Candidate, Objective, objective_value
from project.planner.search.outcome import AS_WELL, REACH, Outcome
from project.planner.search.sensitivity import Turn, applying, unstable
from project.spec.layout import ParallelLayout
from project.spec.units import number

COMMANDS = "To run them"
WORSE = {"time": "take longer", "memory": "hold more", "cost": "cost more a token"}
NEAR = {"time": "time of the fastest", "memory": "memory of the smallest (reserved bytes apart)", "cost": "least cost"}


def search_sheets(outcome: Outcome) -> Iterator[Sheet]:
    yield best_sheet(outcome)
    yield commands_sheet(outcome)
    yield fewer_sheet(outcome)
    yield pareto_sheet(outcome)
    yield stability_sheet(outcome)


def best_sheet(outcome: Outcome) -> Sheet:
    rows = []
    for place, one in enumerate(outcome.best[:WANTED], 1):
        rows.append((str(place), str(one.layout.world_size), *_cells(outcome, one)))
    asked = outcome.asked
    fits = asked.memory <= outcome.cluster.memory_per_rank(asked.layout.world_size)
    rows.append(("asked" if fits else "asked, does not fit", str(asked.layout.world_size), *_cells(outcome, asked)))
    timed, weighed = (sum(getattr(there, count) for there in outcome.every) for count in ("timed", "weighed"))
    note = (
        f"ranked by {outcome.objective}; {timed:,} timed and {weighed:,} weighed on these and fewer GPUs, in "
        f"{sum(there.seconds for there in outcome.every):.1f} s of a core; no others that fit come within "
        f"{REACH[outcome.objective]:g} times the {NEAR[outcome.objective]}; memory is exact, "
        f"{number(outcome.cluster.reserved_bytes, 'B')} reserved included"
    )
    columns = ("", "GPUs>", "layout", "pipeline", "step>", "memory>", "1M tokens>")
    return Sheet("The best layouts", columns, rows, note, {len(rows) - 2})


def _cells(outcome: Outcome, one: Candidate) -> tuple[str, ...]:
    return (
        _degrees_text(one.layout),
        _pipeline_text(one.layout),
        number(one.seconds, "s"),
        _memory_text(one),
        outcome.cost(one),
    )


def _memory_text(one: Candidate) -> str:
    """Gigabytes to three digits: the reserved part is most of it for a small model."""
    return f"{one.memory / 1e9:,.3f} GB"


def _degrees_text(layout: ParallelLayout) -> str:
    shards = " sharded" if layout.dp_mode == "shard" else ""
    return f"pp{layout.pp} dp{layout.dp}{shards} tp{layout.tp} ep{layout.ep} etp{layout.etp}"


def _pipeline_text(layout: ParallelLayout) -> str:
    stages = f" x{layout.virtual_stages}" if layout.virtual_stages > 1 else ""
    again = "" if layout.recompute == "none" else f", recompute {layout.recompute}"
    return (
        f"{layout.schedule}{stages}, {layout.microbatches} microbatch{'es' if layout.microbatches > 1 else ''}{again}"
    )


def commands_sheet(outcome: Outcome) -> Sheet:
    rows = [(str(place), outcome.command(one)) for place, one in enumerate(outcome.best[:WANTED], 1)]
    return Sheet(COMMANDS, ("", "command"), rows)


def fewer_sheet(outcome: Outcome) -> Sheet:
    """A row for each number of GPUs that was tried, compared with all of them."""
    objective, of_all = outcome.objective, objective_value(outcome.found.best[0], outcome.objective)
    rows = []
    for gpus, there in ((outcome.cluster.gpus, outcome.found), *outcome.fewer):
        if there.best:
            one = there.best[0]
            _, _, *numbers = _cells(outcome, one)
            ratio = objective_value(one, objective) / of_all
            rows.append((str(gpus), _degrees_text(one.layout), *numbers, f"x {ratio:.2f}"))
        else:
            rows.append((str(gpus), _why_none(there, objective), "", "", "", ""))
    columns = ("GPUs>", "best layout", "step>", "memory>", "1M tokens>", f"{objective}>")
    return Sheet("Fewer GPUs", columns, rows, fewer_verdict(outcome))


def _why_none(there: Found, objective: Objective) -> str:
    if not there.splits:
        return "none is legal"
    return f"none that fits is within {REACH[objective]:g} times the best" if there.cut else "none fits"


def fewer_verdict(outcome: Outcome) -> str:
    """The answer to whether fewer GPUs would do, by the objective."""
    if not outcome.fewer:
        return "There are no fewer than one."
    objective, of_all = outcome.objective, objective_value(outcome.found.best[0], outcome.objective)
    values = {gpus: objective_value(there.best[0], objective) for gpus, there in outcome.fewer if there.best}
    tried = f"tried: {', '.join(str(gpus) for gpus, _ in outcome.fewer)}"
    least = min(values, key=values.__getitem__, default=0)
    of_best = min([of_all, *values.values()])
    if of_best < of_all and objective == "cost":
        return f"A token costs least on {_gpus(least)}; {tried}."
    enough = [gpus for gpus, its in values.items() if its <= AS_WELL * of_best]
    if of_best < of_all:
        also = "" if min(enough) == least else f", and {_gpus(min(enough))} would do as well (within {AS_WELL - 1:.0%})"
        return f"The best is on {_gpus(least)}{also}; {tried}."
    if enough:
        return f"{_gpus(min(enough))} would do as well (within {AS_WELL - 1:.0%}); {tried}."
    none = [there for _, there in outcome.fewer if there.splits and not there.best]
    worse = [WORSE[objective]] if values or any(there.cut for there in none) else []
    worse += ["do not fit"] if any(not there.cut for there in none) else []
    return f"Fewer GPUs {' or '.join(worse) or 'have no legal layout'}; {tried}."


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' if number > 1 else ''}"


def pareto_sheet(outcome: Outcome) -> Sheet:
    rows = [
        (_degrees_text(one.layout), _pipeline_text(one.layout), number(one.seconds, "s"), _memory_text(one))
        for one in outcome.found.fronts
    ]
    found, gpus = outcome.found, outcome.cluster.gpus
    note = (
        f"On {gpus} GPUs nothing within {found.slack:g} times the {NEAR[outcome.objective]} is both as fast and "
        "smaller. All are timed action by action where that is not too many."
    )
    return Sheet("Time against memory", ("layout", "pipeline", "step>", "memory>"), rows, note)


def stability_sheet(outcome: Outcome) -> Sheet:
    lost = unstable(outcome.turns)
    rows = [
        (
            f"{turn.quantity}, {turn.end} end",
            f"{_degrees_text(turn.winner.layout)}, {_pipeline_text(turn.winner.layout)}",
            number(turn.winner.seconds, "s"),
            f"{turn.loses:+.1%}",
        )
        for turn in outcome.turns
    ]
    columns = ("at", "best there", "step>", "the first above>")
    return Sheet("Where the ranking turns over", columns, rows, " ".join([*_stable(outcome, lost), *_absent(outcome)]))


def _stable(outcome: Outcome, lost: Sequence[Turn]) -> Iterator[str]:
    intervals = applying(outcome.cluster, outcome.objective)
    if lost:
        named = ", ".join(sorted({turn.quantity for turn in lost}))
        yield (
            f"unstable: the layout that is best at the stated figures is not the best, by {outcome.objective}, "
            f"everywhere in the interval that the cluster's file states for {named}."
        )
    elif intervals:
        yield (
            "stable: the layout that is best at the stated figures is beaten by less than 1% everywhere in the "
            f"intervals that the cluster's file states for {', '.join(intervals)}."
        )
    else:
        yield "Nothing can turn over: memory depends on none of the stated intervals."


def _absent(outcome: Outcome) -> Iterator[str]:
    if outcome.cluster.host is not None and outcome.objective != "memory":
        yield (
            "Launch cost and bandwidth do not apply where ranks share cores: both are part of what was measured of a "
            "rank's program, for which no interval is stated."
        )
