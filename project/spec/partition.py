"""The layers of each pipeline stage, and the pipeline rank that holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from project.spec.layout import ParallelLayout
from project.spec.schedules.table import schedule_of


class Costs(NamedTuple):
    """Cost of each layer, and of what the first and the last stage carry besides (embedding, head), in any unit."""

    layers: Sequence[int]
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Part:
    """A contiguous piece of the model; the first holds the embedding as well, the last the final norm and head."""

    stage: int
    layers: range
    first: bool
    last: bool


def partition(costs: Costs, layout: ParallelLayout) -> list[Part]:
    """One part per stage, by `layout.partition` or balanced."""
    sizes = layout.partition or balanced_sizes(costs, layout.stages)
    assert (len(sizes), sum(sizes)) == (layout.stages, len(costs.layers)), "refused by legality"
    starts = [sum(sizes[:stage]) for stage in range(len(sizes))]
    last = len(sizes) - 1
    return [
        Part(stage, range(start, start + size), stage == 0, stage == last)
        for stage, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def balanced_sizes(costs: Costs, stages: int) -> tuple[int, ...]:
    """Chooses, of all contiguous partitions with a layer on every stage, one whose most expensive stage, which sets the
    pipeline's pace, is cheapest; among those the most even, and then the one with more layers in front."""
    layers = len(costs.layers)
    before = [sum(costs.layers[:layer]) for layer in range(layers + 1)]

    def cost(stage: int, start: int, stop: int) -> int:
        ends = costs.first * (stage == 0) + costs.last * (stage == stages - 1)
        return before[stop] - before[start] + ends

    def stops(stage: int, start: int) -> range:
        """Where a stage that starts there may stop, so that each of those behind it gets a layer."""
        return range(layers, layers + 1) if stage == stages - 1 else range(layers - (stages - 1 - stage), start, -1)

    @cache
    def pace(stage: int, start: int) -> int:
        if stage == stages:
            return 0
        return min(max(cost(stage, start, stop), pace(stage + 1, stop)) for stop in stops(stage, start))

    @cache
    def evenest(stage: int, start: int) -> tuple[int, tuple[int, ...]]:
        """The most even partition that keeps the pace: its sum of squares, and its sizes."""
        if stage == stages:
            return 0, ()
        best: tuple[int, tuple[int, ...]] | None = None
        for stop in stops(stage, start):
            here = cost(stage, start, stop)
            if here <= limit and pace(stage + 1, stop) <= limit:
                squares, sizes = evenest(stage + 1, stop)
                if best is None or here**2 + squares < best[0]:
                    best = here**2 + squares, (stop - start, *sizes)
        assert best is not None, "some partition keeps the pace"
        return best

    limit = pace(0, 0)
    return evenest(0, 0)[1]


def stage_to_rank(layout: ParallelLayout) -> list[int]:
    """The rank along pp of each stage."""
    return schedule_of(layout).placement(layout)


def stages_of(rank: int, layout: ParallelLayout) -> list[int]:
    return [stage for stage, holder in enumerate(stage_to_rank(layout)) if holder == rank]
