"""The layers of each stage."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.spec.cost import stage_costs
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Costs, Part, partition

EVEN = Costs([10] * 8, first=1, last=3)


def stages(costs: Costs, layout: ParallelLayout) -> list[list[int]]:
    return [list(part.layers) for part in partition(costs, layout)]


def paces(costs: Costs, parts: list[Part]) -> list[int]:
    """The cost of each stage."""
    layers = [sum(costs.layers[layer] for layer in part.layers) for part in parts]
    return [cost + costs.first * part.first + costs.last * part.last for cost, part in zip(layers, parts, strict=True)]


def test_the_document_s_stages_hold_two_layers_each() -> None:
    costs = Costs(*stage_costs(ModelConfig(), seq_len=256))
    assert stages(costs, ParallelLayout(pp=4)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_stage_with_a_heavy_head_has_fewer_layers() -> None:
    assert stages(Costs([10] * 8, last=20), ParallelLayout(pp=2)) == [[0, 1, 2, 3, 4], [5, 6, 7]]


def test_a_costly_layer_is_a_stage_of_its_own() -> None:
    assert stages(Costs([30, 10, 10, 10]), ParallelLayout(pp=2)) == [[0], [1, 2, 3]]


def test_layers_that_are_left_over_go_to_the_first_stages() -> None:
    assert stages(Costs([10] * 7, last=3), ParallelLayout(pp=3)) == [[0, 1, 2], [3, 4], [5, 6]]


def test_every_virtual_stage_has_its_layers() -> None:
    assert stages(EVEN, ParallelLayout(pp=2, virtual_stages=2)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_partition_by_hand_is_taken_as_given() -> None:
    assert stages(EVEN, ParallelLayout(pp=4, partition=(3, 2, 2, 1))) == [[0, 1, 2], [3, 4], [5, 6], [7]]


@pytest.mark.parametrize("pp", [1, 2, 4])
def test_embedding_and_head_are_on_the_first_and_the_last_stage(pp: int) -> None:
    parts = partition(EVEN, ParallelLayout(pp=pp))
    assert [part.first for part in parts] == [True] + [False] * (pp - 1)
    assert [part.last for part in parts] == [False] * (pp - 1) + [True]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(0, 30), st.integers(0, 30), st.data())
def test_no_partition_has_a_cheaper_slowest_stage(
    layers: list[int], first: int, last: int, data: st.DataObject
) -> None:
    costs, number = Costs(layers, first, last), data.draw(st.integers(1, len(layers)))
    parts = partition(costs, ParallelLayout(pp=number))
    assert [layer for part in parts for layer in part.layers] == list(range(len(layers)))
    slowest = []
    for cuts in combinations(range(1, len(layers)), number - 1):
        sizes = tuple(stop - start for start, stop in zip((0, *cuts), (*cuts, len(layers)), strict=True))
        slowest.append(max(paces(costs, partition(costs, ParallelLayout(pp=number, partition=sizes)))))
    assert max(paces(costs, parts)) == min(slowest)
