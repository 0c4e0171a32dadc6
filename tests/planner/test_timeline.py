"""Simulated schedules idle as long as their closed forms say."""

import pytest

from project.planner.timeline import Timeline, simulate
from project.spec.layout import ParallelLayout
from project.spec.schedules.order import order_of
from project.spec.schedules.table import schedule_of

EVEN = {"F": 1.0, "B": 2.0, "I": 1.0, "W": 1.0}


def even(layout: ParallelLayout) -> Timeline:
    return simulate(order_of(layout), lambda stage, kind: EVEN[kind], lambda here, there: 0.0)


@pytest.mark.parametrize("schedule", ["GPipe", "1F1B"])
@pytest.mark.parametrize(("pp", "microbatches"), [(1, 1), (2, 2), (4, 4), (4, 8), (3, 7), (8, 64)])
def test_gpipe_and_1f1b_have_their_closed_form_bubble(schedule: str, pp: int, microbatches: int) -> None:
    layout = ParallelLayout(pp=pp, microbatches=microbatches, schedule=schedule)
    timeline, wanted = even(layout), (pp - 1) / (microbatches + pp - 1)
    assert timeline.span == 3 * (microbatches + pp - 1)
    assert timeline.bubbles == pytest.approx([wanted] * pp)
    assert schedule_of(layout).bubble(layout) == wanted


@pytest.mark.parametrize(("pp", "virtual", "microbatches"), [(2, 2, 4), (4, 2, 8), (4, 3, 8), (4, 2, 4), (8, 4, 32)])
def test_interleaved_1f1b_has_its_closed_form_bubble(pp: int, virtual: int, microbatches: int) -> None:
    layout = ParallelLayout(pp=pp, virtual_stages=virtual, microbatches=microbatches, schedule="Interleaved1F1B")
    wanted = (pp - 1) / (virtual * microbatches + pp - 1)
    assert even(layout).bubbles == pytest.approx([wanted] * pp)
    assert schedule_of(layout).bubble(layout) == wanted


@pytest.mark.parametrize(("pp", "microbatches"), [(2, 4), (4, 8), (4, 12), (8, 16)])
def test_zbv_waits_for_nothing_once_it_has_begun(pp: int, microbatches: int) -> None:
    """Where F, I and W take as long: each rank works without a pause from its first action to its last, and all for as
    long, so that iterations that follow one another leave no gap."""
    layout = ParallelLayout(pp=pp, virtual_stages=2, microbatches=microbatches, schedule="ZBVZeroBubble")
    timeline = even(layout)
    for rank in range(pp):
        own = [timed for timed in timeline.actions if timed.rank == rank]
        assert own[-1].end - own[0].start == timeline.busy[rank] == 6 * microbatches


def test_zbv_has_a_bubble_where_the_halves_are_uneven() -> None:
    layout = ParallelLayout(pp=4, virtual_stages=2, microbatches=8, schedule="ZBVZeroBubble")
    uneven = simulate(order_of(layout), lambda stage, kind: {"F": 1.0, "I": 1.5, "W": 0.5}[kind], lambda a, b: 0.0)
    assert uneven.bubble > even(layout).bubble


def test_messages_take_time_between_ranks_alone() -> None:
    layout = ParallelLayout(pp=2, virtual_stages=2, microbatches=1, schedule="ZBVZeroBubble")  # on ranks 0 1 1 0
    timeline = simulate(order_of(layout), lambda stage, kind: 1.0, lambda here, there: 10.0)
    starts = {str(timed.action): timed.start for timed in timeline.actions}
    assert [starts[f"{stage}F0"] for stage in range(4)] == [0, 11, 12, 23]


def test_the_slowest_stage_sets_the_timeline_s_pace() -> None:
    layout = ParallelLayout(pp=4, microbatches=64)
    slow = simulate(order_of(layout), lambda stage, kind: 3.0 if stage == 2 else 1.0, lambda a, b: 0.0)
    assert slow.span == pytest.approx(64 * 6, rel=0.05)
    assert slow.bubbles[2] < 0.05
    assert slow.bubbles[0] > 0.6


def test_simulating_an_order_that_deadlocks_is_an_error() -> None:
    order = order_of(ParallelLayout(pp=2, microbatches=2))
    order[0].reverse()
    with pytest.raises(ValueError, match="0B1, 1F0"):
        simulate(order, lambda stage, kind: 1.0, lambda a, b: 0.0)
