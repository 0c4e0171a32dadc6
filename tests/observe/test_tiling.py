"""A step as tiles without gap or overlap, with idle time and messages told apart."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from project.engine.stage import Phase, Span
from project.observe.tiling import RankStep, Tile, bubble, tiled
from project.spec.layout import ParallelLayout

TWO_STAGES = ParallelLayout(pp=2, microbatches=1)


def two_stages() -> list[RankStep]:
    """One microbatch: stage 1 begins at 45, five after stage 0's forward is done; its gradient takes five as well."""
    spans = [Span(0, "F", 0, 10, 40), Span(0, "B", 0, 125, 165)], [Span(1, "F", 0, 45, 75), Span(1, "B", 0, 80, 120)]
    around = (
        {"schedule": (10, 170), "statistics": (170, 175), "optimizer": (180, 190), "waiting": (195, 200)},
        {"data": (0, 5), "schedule": (10, 120), "loss": (75, 80), "statistics": (120, 175)},
    )
    return [
        RankStep(3, 2e-7, 0, 200, done, spans[rank], [Phase(name, *times) for name, times in around[rank].items()])
        for rank, done in ((0, 195), (1, 200))
    ]


def told(tiles: list[Tile]) -> list[tuple[str, int, int]]:
    return [(tile.name, tile.start_ns, tile.end_ns) for tile in tiles]


def test_a_rank_is_idle_until_what_it_needs_is_done_and_then_the_message_travels() -> None:
    first, second = tiled(two_stages(), TWO_STAGES)
    assert told(second)[:5] == [
        ("data", 0, 5),
        ("other", 5, 10),
        ("idle", 10, 40),
        ("send/receive", 40, 45),
        ("1F0", 45, 75),
    ]
    assert told(first)[1:5] == [("0F0", 10, 40), ("idle", 40, 120), ("send/receive", 120, 125), ("0B0", 125, 165)]


def test_a_rank_is_idle_in_a_sum_over_ranks_until_the_last_has_come() -> None:
    first, second = tiled(two_stages(), TWO_STAGES)
    assert told(second)[5:] == [
        ("loss", 75, 80),
        ("1B0", 80, 120),
        ("idle", 120, 170),
        ("statistics", 170, 175),
        ("other", 175, 200),
    ]
    assert told(first)[5:8] == [("send/receive", 165, 170), ("statistics", 170, 175), ("other", 175, 180)]
    assert told(first)[-1] == ("waiting", 195, 200)


def test_the_bubble_is_what_is_not_computed_in_the_schedule_s_time() -> None:
    ranks = two_stages()
    assert bubble(ranks, tiled(ranks, TWO_STAGES)) == 1 - (30 + 40 + 30 + 5 + 40) / (2 * 160)
    without = [RankStep(1, 1.0, 0, 10, 10)]
    assert bubble(without, tiled(without, ParallelLayout())) is None


def test_replicas_wait_for_their_own_stages_only() -> None:
    """In two pipelines, a late stage of the second does not delay the first."""
    ends = {0: 20, 1: 90}
    ranks = [
        RankStep(1, 1e-7, 0, 100, 100, [Span(0, "F", 0, 0, ends[dp])], [Phase("schedule", 0, 95)]) for dp in (0, 1)
    ]
    ranks += [
        RankStep(1, 1e-7, 0, 100, 100, [Span(1, "F", 0, end + 2, end + 5)], [Phase("schedule", 0, 95)])
        for end in ends.values()
    ]
    _, _, first, second = tiled(ranks, ParallelLayout(pp=2, dp=2, microbatches=1))
    assert told(first)[:2] == [("idle", 0, 20), ("send/receive", 20, 22)]
    assert told(second)[:2] == [("idle", 0, 90), ("send/receive", 90, 92)]


instants = st.lists(st.integers(-5, 120), min_size=2, max_size=20).map(sorted)


@given(instants, instants, st.integers(0, 20), st.integers(80, 110))
def test_tiles_fill_the_step_whatever_was_recorded(actions, phases, start, end) -> None:
    """Recorded spans may reach over the step's ends and overlap."""
    spans = [Span(0, "F", place, *pair) for place, pair in enumerate(pairwise(actions))]
    around = [Phase("schedule", phases[0], phases[-1]), Phase("gradients", phases[0], phases[-1])]
    ranks = [RankStep(1, 1e-7, start, end, end, spans, around)]
    (tiles,) = tiled(ranks, ParallelLayout(microbatches=1))
    assert tiles[0].start_ns == start
    assert tiles[-1].end_ns == end
    assert all(one.end_ns == other.start_ns for one, other in pairwise(tiles))
