"""A rank's step as tiles: what was recorded of it, and names for the time between, without a gap or an overlap.

Between two actions a rank waits for a message. As all ranks are on one clock, that time is told apart: until what the
next action rests on was done elsewhere the rank is idle, and from then on the message travels. In the same way a sum
over ranks is idle time until the last of them has come to it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from project.engine.spans import Phase, Span
from project.observe.collective_spans import CollectiveSpan
from project.spec.layout import ParallelLayout

IDLE, MESSAGE, OTHER = "idle", "send/receive", "other"
# What the phases are called, and what they count as.
KINDS = {
    "loss": "forward",
    "statistics": OTHER,
    "gradients": "gradients",
    "optimizer": "optimizer",
    "data": "data",
    "validation": "validation",
    "waiting": IDLE,
}
ACTIONS = {"F": "forward", "B": "backward", "I": "backward", "W": "weight gradient"}


Key = tuple[int, str, int, int]
"""Stage, action, microbatch, and the batch of those accumulated in the step. A split backward's first half counts as a
backward: it is what the stage before waits for."""


class Tile(NamedTuple):
    """`action` is None for what is no action of a stage; `kind` is the category that it is counted and coloured by."""

    name: str
    kind: str
    start_ns: int
    end_ns: int
    stage: int | None = None
    action: str | None = None
    microbatch: int | None = None


@dataclass
class RankStep:
    """What a rank recorded of an optimizer step, on the clock of all ranks. `done_ns` is when it was done itself; until
    `end_ns` it waited for the last one. `seconds` is how long the step took, validation left out."""

    step: int
    seconds: float
    start_ns: int
    end_ns: int
    done_ns: int
    spans: list[Span] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    collectives: list[CollectiveSpan] = field(default_factory=list)


def tiled(ranks: Sequence[RankStep], layout: ParallelLayout) -> list[list[Tile]]:
    """The tiles of each rank, from `start_ns` to `end_ns`, given what all ranks recorded of the same step."""
    places = [layout.coordinates(rank) for rank in range(len(ranks))]
    done: dict[tuple[int, int], dict[Key, int]] = defaultdict(dict)
    arrivals: dict[int, list[list[int]]] = defaultdict(list)
    for place, rank in zip(places, ranks, strict=True):
        done[place.dp, place.tp] |= {key: span.end_ns for key, span in numbered(rank.spans)}
        arrivals[place.tp].append([phase.start_ns for phase in rank.phases if phase.name == "statistics"])
    last_arrivals = {tp: [max(times) for times in zip(*each, strict=False)] for tp, each in arrivals.items()}
    return [
        list(clipped(of_rank(rank, done[place.dp, place.tp], last_arrivals[place.tp], layout.stages), rank))
        for place, rank in zip(places, ranks, strict=True)
    ]


def numbered(spans: Sequence[Span]) -> Iterator[tuple[Key, Span]]:
    seen: dict[tuple[int, str, int], int] = {}
    for span in spans:
        what = (span.stage, "B" if span.action == "I" else span.action, span.microbatch)
        seen[what] = seen.get(what, -1) + 1
        yield (*what, seen[what]), span


def of_rank(rank: RankStep, done: Mapping[Key, int], last_arrivals: Sequence[int], stages: int) -> Iterator[Tile]:
    """In order; may overlap at the ends by what two readings of a clock differ."""
    schedules = [phase for phase in rank.phases if phase.name == "schedule"]
    leaves: list[tuple[Tile, int | None]] = []
    for key, span in numbered(rank.spans):
        name = f"{span.stage}{span.action}{span.microbatch}"
        leaf = Tile(name, ACTIONS[span.action], span.start_ns, span.end_ns, span.stage, span.action, span.microbatch)
        leaves.append((leaf, done.get(needed(key, stages))))
    arrivals = iter(last_arrivals)
    for phase in rank.phases:
        if phase.name == "statistics":
            together = min(max(next(arrivals, phase.start_ns), phase.start_ns), phase.end_ns)
            leaves.append((Tile(IDLE, IDLE, phase.start_ns, together), None))
            leaves.append((Tile(phase.name, KINDS[phase.name], together, phase.end_ns), None))
        elif phase.name in KINDS:
            leaves.append((Tile(phase.name, KINDS[phase.name], phase.start_ns, phase.end_ns), None))
    at = rank.start_ns
    for leaf, needed_at in sorted(leaves, key=lambda pair: pair[0].start_ns):
        yield from between(at, leaf.start_ns, needed_at, schedules, stages)
        yield leaf
        at = max(at, leaf.end_ns)
    yield from between(at, rank.end_ns, None, schedules, stages)


def needed(key: Key, stages: int) -> Key:
    """What another stage has to have done before; of the ends of the pipeline something that nobody does."""
    stage, action, microbatch, batch = key
    if action == "F":
        return stage - 1, "F", microbatch, batch
    return stage + 1 if action == "B" else stages, "B", microbatch, batch


def between(start: int, end: int, needed_at: int | None, schedules: Sequence[Phase], stages: int) -> Iterator[Tile]:
    """Names for the time in front of an action that needed what was done at `needed_at`."""
    for schedule in schedules:
        first, last = max(start, schedule.start_ns), min(end, schedule.end_ns)
        if first < last:
            yield Tile(OTHER, OTHER, start, first)
            arrival = min(max(first, needed_at or first), last)
            yield Tile(IDLE, IDLE, first, arrival)
            yield Tile(MESSAGE, MESSAGE, arrival, last) if stages > 1 else Tile(OTHER, OTHER, arrival, last)
            start = last
    yield Tile(OTHER, OTHER, start, end)


def clipped(tiles: Iterator[Tile], rank: RankStep) -> Iterator[Tile]:
    """Without the empty ones, none beginning before the one in front of it ends."""
    at = rank.start_ns
    for tile in tiles:
        start, end = max(tile.start_ns, at), min(tile.end_ns, rank.end_ns)
        if start < end:
            yield tile._replace(start_ns=start, end_ns=end)
            at = end


def bubble(ranks: Sequence[RankStep], tiles_of: Sequence[Sequence[Tile]]) -> float | None:
    """The fraction of the schedule's time in which a rank computes nothing, all ranks and batches of a step together:
    the planner's word, of what happened. The schedule lasts from the first rank's start to the last rank's end. None
    without one."""
    phases = [[phase for phase in rank.phases if phase.name == "schedule"] for rank in ranks]
    windows = [(min(b.start_ns for b in batch), max(b.end_ns for b in batch)) for batch in zip(*phases, strict=False)]
    whole = sum(end - start for start, end in windows) * len(ranks)
    tiles = (tile for each in tiles_of for tile in each)
    busy = sum(tile.end_ns - tile.start_ns for tile in tiles if tile.kind in ACTIONS.values())
    return 1 - busy / whole if whole else None
