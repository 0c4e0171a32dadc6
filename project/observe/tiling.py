"""A rank's step as tiles: the recorded actions and phases, and the time between them, without a gap or an overlap.

Between two actions a rank waits for a message. Because all ranks share one clock, that time is divided: the rank is
idle until the other rank has computed the message, and from then on the message is in flight. In a sum over ranks, a
rank is idle until the last of them has begun it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from project.engine.stage import Phase, Span
from project.observe.ledger import CollectiveSpan
from project.spec.layout import ParallelLayout

IDLE, MESSAGE, OTHER = "idle", "send/receive", "other"
# The kind that each phase counts as.
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
"""Stage, action, microbatch, and the index of the batch among those that the step accumulates. The first half of a
split backward counts as a backward, because the stage before waits for it."""


class Tile(NamedTuple):
    """A piece of a step, in nanoseconds. `kind` is the category by which it is counted and coloured; stage, action and
    microbatch are None unless it is an action of a stage."""

    name: str
    kind: str
    start_ns: int
    end_ns: int
    stage: int | None = None
    action: str | None = None
    microbatch: int | None = None


@dataclass
class RankStep:
    """A rank's record of an optimizer step, on the clock of all ranks. The rank was done at `done_ns`, and waited for
    the last rank until `end_ns`. `seconds` is the duration of the step without validation."""

    step: int
    seconds: float
    start_ns: int
    end_ns: int
    done_ns: int
    spans: list[Span] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    collectives: list[CollectiveSpan] = field(default_factory=list)


def tiled(ranks: Sequence[RankStep], layout: ParallelLayout) -> list[list[Tile]]:
    """The tiles of each rank from `start_ns` to `end_ns`, from all ranks' records of the same step."""
    places = [layout.coordinates(rank) for rank in range(len(ranks))]
    done: dict[tuple[int, int], dict[Key, int]] = defaultdict(dict)
    arrivals: list[list[int]] = []
    for place, rank in zip(places, ranks, strict=True):
        done[place.dp, place.tp] |= {key: span.end_ns for key, span in numbered(rank.spans)}
        arrivals.append([phase.start_ns for phase in rank.phases if phase.name == "statistics"])
    last_arrivals = [max(times) for times in zip(*arrivals, strict=False)]
    return [
        list(clipped(of_rank(rank, done[place.dp, place.tp], last_arrivals, layout.stages), rank))
        for place, rank in zip(places, ranks, strict=True)
    ]


def numbered(spans: Sequence[Span]) -> Iterator[tuple[Key, Span]]:
    """The spans with their keys; the index of the batch is counted."""
    seen: dict[tuple[int, str, int], int] = {}
    for span in spans:
        what = (span.stage, "B" if span.action == "I" else span.action, span.microbatch)
        seen[what] = seen.get(what, -1) + 1
        yield (*what, seen[what]), span


def of_rank(rank: RankStep, done: Mapping[Key, int], last_arrivals: Sequence[int], stages: int) -> Iterator[Tile]:
    """A rank's tiles in order; neighbours may overlap by the difference of two readings of a clock."""
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
    """The action of another stage that an action needs; at the ends of the pipeline a key that does not occur."""
    stage, action, microbatch, batch = key
    if action == "F":
        return stage - 1, "F", microbatch, batch
    return stage + 1 if action == "B" else stages, "B", microbatch, batch


def between(start: int, end: int, needed_at: int | None, schedules: Sequence[Phase], stages: int) -> Iterator[Tile]:
    """The tiles before an action; the action that it needs was done at `needed_at`."""
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
    """The tiles without empty ones and without overlaps."""
    at = rank.start_ns
    for tile in tiles:
        start, end = max(tile.start_ns, at), min(tile.end_ns, rank.end_ns)
        if start < end:
            yield tile._replace(start_ns=start, end_ns=end)
            at = end


def bubble(ranks: Sequence[RankStep], tiles_of: Sequence[Sequence[Tile]]) -> float | None:
    """The measured bubble: the fraction of the schedule's time in which ranks compute nothing, over all ranks and
    batches of a step, as the planner defines it. The schedule lasts from the first rank's start to the last rank's end.
    None if there is no schedule."""
    phases = [[phase for phase in rank.phases if phase.name == "schedule"] for rank in ranks]
    windows = [(min(b.start_ns for b in batch), max(b.end_ns for b in batch)) for batch in zip(*phases, strict=False)]
    whole = sum(end - start for start, end in windows) * len(ranks)
    tiles = (tile for each in tiles_of for tile in each)
    busy = sum(tile.end_ns - tile.start_ns for tile in tiles if tile.kind in ACTIONS.values())
    return 1 - busy / whole if whole else None
