"""Schedules with controllable memory hold what their paper says, and idle as it says (Qi et al., arXiv 2405.15362)."""

import pytest

from project.planner.timeline import Timeline, simulate
from project.spec.layout import ParallelLayout
from project.spec.schedules.in_flight import share_in_flight
from project.spec.schedules.order import order_of
from project.spec.schedules.table import schedule_of

PIPELINES = [2, 3, 4, 5, 6, 8, 9, 12, 16]


def layout(schedule: str, pp: int, microbatches: int) -> ParallelLayout:
    return ParallelLayout(pp=pp, virtual_stages=2, schedule=schedule, microbatches=microbatches)


def timed(schedule: str, pp: int, microbatches: int, forward: float, inputs: float, weights: float) -> Timeline:
    seconds = {"F": forward, "I": inputs, "W": weights}
    return simulate(order_of(layout(schedule, pp, microbatches)), lambda _, kind: seconds[kind], lambda *_: 0.0)


def idle(schedule: str, pp: int) -> float:
    """Actions of a stage, where each takes 1."""
    microbatches = 3 * pp
    return timed(schedule, pp, microbatches, 1, 1, 1).span - 6 * microbatches


@pytest.mark.parametrize("pp", PIPELINES)
def test_v_half_holds_half_of_1f1b_s_microbatches(pp: int) -> None:
    assert max(share_in_flight(layout("VHalf", pp, 4 * pp), rank) for rank in range(pp)) == (pp + 2) // 2


@pytest.mark.parametrize("pp", PIPELINES)
def test_v_half_idles_little_more_than_half_as_long_as_1f1b(pp: int) -> None:
    assert idle("VHalf", pp) <= 3.5 * pp - 4
    assert idle("VHalf", pp) <= 0.6 * 6 * (pp - 1)


@pytest.mark.parametrize("pp", PIPELINES)
def test_v_min_holds_a_third_of_1f1b_s_microbatches(pp: int) -> None:
    assert max(share_in_flight(layout("VMin", pp, 4 * pp), rank) for rank in range(pp)) == (pp + 4) // 3


@pytest.mark.parametrize("pp", PIPELINES)
def test_v_min_idles_two_thirds_as_long_as_1f1b(pp: int) -> None:
    assert idle("VMin", pp) <= 4 * (pp - 1)


UNEVEN = [
    (1.0, 1.0, 1.0),
    (1.0, 1.1, 0.9),
    (1.0, 1.4, 0.8),
    (1.0, 1.5, 0.5),
    (1.5, 1.0, 0.5),
    (1.0, 1.0, 2.0),
    (1.0, 1.6, 0.6),
]


@pytest.mark.parametrize("seconds", UNEVEN)
@pytest.mark.parametrize(("schedule", "within"), [("VHalf", 0.03), ("VMin", 0.05)])
def test_the_closed_form_is_the_simulated_time(
    schedule: str, within: float, seconds: tuple[float, float, float]
) -> None:
    """With `wait` for each other rank and `stall` for each microbatch, in seconds of a rank: two stages."""
    record = schedule_of(layout(schedule, 4, 8))
    for pp in (4, 6, 8):
        for microbatches in (2 * pp, 8 * pp):
            a_rank = tuple(2 * each for each in seconds)
            stalled = microbatches * (sum(a_rank) + record.stall(*a_rank))
            closed = stalled + (pp - 1) * record.wait(*a_rank) / 2
            assert closed == pytest.approx(timed(schedule, pp, microbatches, *seconds).span, rel=within)
