"""Groups of ranks in closed form are those of the layout's coordinates."""

from collections import Counter

import pytest

from project.planner.machine.group import group_over
from project.spec.layout import AXES, DENSE, EXPERT, ParallelLayout

LAYOUTS = [
    ParallelLayout(),
    ParallelLayout(pp=4, tp=4, ep=4),
    ParallelLayout(pp=2, dp=4, tp=2, ep=4),
    ParallelLayout(pp=2, dp=3, tp=2, etp=2),
    ParallelLayout(dp=4, tp=4, ep=2, etp=2),
    ParallelLayout(pp=2, dp=2, tp=1, ep=2),
]


def enumerated(axes: tuple[str, ...], layout: ParallelLayout, rank: int) -> list[int]:
    """The ranks that differ from `rank` along `axes` alone."""
    view = DENSE if set(axes) <= set(DENSE) else EXPERT
    fixed = [axis for axis in view if axis not in axes]

    def at(rank: int) -> list[int]:
        return [getattr(layout.coordinates(rank), axis) for axis in fixed]

    return [other for other in range(layout.world_size) if at(other) == at(rank)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("axes", [*AXES, DENSE], ids="_".join)
def test_an_axis_has_its_groups_members_and_names(layout: ParallelLayout, axes: tuple[str, ...]) -> None:
    group = group_over(axes, layout)
    for rank in range(layout.world_size):
        ranks = enumerated(axes, layout, rank)
        assert list(group.members(rank)) == ranks
        named = next(("_".join(of) for of in AXES if enumerated(of, layout, rank) == ranks), "world")
        assert group.size == len(ranks)
        assert group.axis == named


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("axes", [*AXES, DENSE], ids="_".join)
@pytest.mark.parametrize("per_node", [1, 2, 4, 8])
def test_a_group_knows_how_many_of_its_ranks_share_a_node(
    layout: ParallelLayout, axes: tuple[str, ...], per_node: int
) -> None:
    group = group_over(axes, layout)
    nodes = Counter(rank // per_node for rank in group.members(0))
    assert group.on_one_node(per_node) == nodes[0]
