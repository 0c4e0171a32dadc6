"""A building block that repeats is a schedule that can be run, and lives as long as its block."""

import pytest

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.building_block import BuildingBlock
from project.spec.schedules.schedule import v_shaped
from project.spec.schedules.soundness import count_faults, order_faults, stuck

TIGHT = BuildingBlock(down=1, up=1, turns=(1, 1, 1))


def rows(block: BuildingBlock, pp: int, microbatches: int) -> list[list[Action]]:
    layout = ParallelLayout(pp=pp, virtual_stages=2, microbatches=microbatches)
    stages = [[stage for stage in range(2 * pp) if v_shaped(layout)[stage] == rank] for rank in range(pp)]
    return [block.order(rank, stages[rank], layout) for rank in range(pp)]


@pytest.mark.parametrize("block", [TIGHT, BuildingBlock(4, 2, (1, 4, 4)), BuildingBlock(1, 2, (5, 1, 4))])
@pytest.mark.parametrize("microbatches", [1, 2, 9])
def test_every_action_is_there_once_and_no_rank_waits_forever(block: BuildingBlock, microbatches: int) -> None:
    pp = 4
    layout = ParallelLayout(pp=pp, virtual_stages=2, microbatches=microbatches)
    cells = [[(action,) for action in row] for row in rows(block, pp, microbatches)]
    assert not [*count_faults(cells, layout), *order_faults(cells, layout), *stuck(cells, layout.stages)]


def test_one_microbatch_goes_down_the_v_and_up_and_back_the_same_way() -> None:
    assert [TIGHT.starts(rank, 3) for rank in range(3)] == [(0, 5, 6, 11), (1, 4, 7, 10), (2, 3, 8, 9)]
    assert [str(action) for action in rows(BuildingBlock(1, 1, (3, 1, 3)), 3, 1)[0]] == [
        *("0F0", "5F0", "5I0", "5W0", "0I0", "0W0"),
    ]


def test_two_actions_on_one_unit_are_refused() -> None:
    with pytest.raises(ValueError, match="two actions of rank 0 of 3 fall on one unit"):
        rows(TIGHT, 3, 2)
