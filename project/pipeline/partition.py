"""Which layers stand on which stage. No torch: the planner reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

from project.parallel.layout import ParallelLayout


@dataclass(frozen=True)
class Part:
    """A contiguous piece of the model; the first holds the embedding as well, the last the final norm and head."""

    stage: int
    layers: range
    first: bool
    last: bool


def partition(num_layers: int, layout: ParallelLayout) -> list[Part]:
    """One part per stage, by `layout.partition` or evenly. What is left over goes to the first stages: the last has
    the head to carry."""
    sizes = layout.partition or even_sizes(num_layers, layout.stages)
    assert (len(sizes), sum(sizes)) == (layout.stages, num_layers), "refused by legality"
    starts = [sum(sizes[:stage]) for stage in range(len(sizes))]
    last = len(sizes) - 1
    return [
        Part(stage, range(start, start + size), stage == 0, stage == last)
        for stage, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def even_sizes(num_layers: int, stages: int) -> Sequence[int]:
    size, left = divmod(num_layers, stages)
    return [size + (stage < left) for stage in range(stages)]
