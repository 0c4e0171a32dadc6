"""Interleaved 1F1B (Narayanan et al., arXiv 2104.04473, section 2.2): several stages a rank, so that the pipeline fills
in a fraction of the time.
"""

from collections.abc import Sequence
from itertools import chain, repeat

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.row import Row
from project.spec.schedules.schedule import FILL_AND_DRAIN, Schedule, fill_and_drain, rounds


def turns(layout: ParallelLayout, stages: Sequence[int]) -> list[int]:
    """The stage of each turn: microbatches go in rounds of about pp, each round through all of a rank's stages."""
    number = rounds(layout.pp, layout.microbatches)
    return list(chain.from_iterable(repeat(s, layout.microbatches // number) for _ in range(number) for s in stages))


def warm_up(rank: int, layout: ParallelLayout, hop: int) -> int:
    """Forwards before the first backward: the last rank's first round up to its last stage, and `hop` for each rank
    between here and there."""
    in_round = layout.microbatches // rounds(layout.pp, layout.microbatches)
    last = (layout.virtual_stages - 1) * in_round
    return min(last + hop * (layout.pp - 1 - rank), layout.virtual_stages * layout.microbatches)


def two_rounds(layout: ParallelLayout) -> int:
    """Microbatches of the first two rounds: a third has as many in flight as the second."""
    number = rounds(layout.pp, layout.microbatches)
    return min(number, 2) * (layout.microbatches // number)


def order(rank: int, stages: Sequence[int], layout: ParallelLayout) -> list[Action]:
    row = Row()
    forwards, backwards = turns(layout, stages), turns(layout, stages[::-1])
    before = warm_up(rank, layout, hop=2)
    for stage in forwards[:before]:
        row.forward(stage)
    for ahead, back in zip(forwards[before:], backwards, strict=False):
        row.forward(ahead)
        row.backward(back)
    for stage in backwards[len(forwards) - before :]:
        row.backward(stage)
    return row.actions


def bubble(layout: ParallelLayout) -> float | None:
    """Bubble where the rounds are of p microbatches; None otherwise."""
    return None if layout.microbatches % layout.pp else fill_and_drain(layout)


INTERLEAVED = Schedule(
    "Interleaved1F1B",
    "1F1B; more stages idle less, send more",
    order,
    with_one_stage="1F1B",
    in_rounds=True,
    filled_by=two_rounds,
    bubble=bubble,
    bubble_formula=FILL_AND_DRAIN,
    torch_class="Interleaved1F1B",
)
