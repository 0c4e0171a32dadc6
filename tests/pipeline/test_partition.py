"""Which layers stand on which stage."""

import pytest

from project.parallel.layout import ParallelLayout
from project.pipeline.partition import partition


def stages(num_layers: int, layout: ParallelLayout) -> list[list[int]]:
    return [list(part.layers) for part in partition(num_layers, layout)]


def test_the_document_s_stages() -> None:
    assert stages(8, ParallelLayout(pp=4)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_what_is_left_over_goes_to_the_first_stages() -> None:
    assert stages(7, ParallelLayout(pp=3)) == [[0, 1, 2], [3, 4], [5, 6]]


def test_by_hand() -> None:
    assert stages(8, ParallelLayout(pp=4, partition=(3, 2, 2, 1))) == [[0, 1, 2], [3, 4], [5, 6], [7]]


@pytest.mark.parametrize("pp", [1, 2, 4])
def test_the_ends_are_on_the_first_and_the_last(pp: int) -> None:
    parts = partition(8, ParallelLayout(pp=pp))
    assert [part.first for part in parts] == [True] + [False] * (pp - 1)
    assert [part.last for part in parts] == [False] * (pp - 1) + [True]
