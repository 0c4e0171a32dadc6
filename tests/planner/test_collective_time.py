"""Collectives take what the formulas say, and groups cross nodes where the order of ranks makes them."""

import dataclasses

import pytest

from project.planner.cost.communication_time import collective_link, collective_seconds, distinct_places
from project.planner.machine.cluster_file import load_cluster
from project.planner.machine.group import Group, group_over
from project.spec.layout import ParallelLayout

ONE = load_cluster("h100_8x")
MANY = load_cluster("h100_128x8")
MB = 2**20


def strided(size: int, stride: int) -> Group:
    return Group("", ((size, stride),) if size > 1 else ())


@pytest.mark.parametrize("size", [2, 4, 8])
def test_collectives_within_a_node_take_the_textbook_formulas_time(size):
    a, b, n = ONE.intra.latency_s.value, ONE.intra.rate, 64 * MB
    once = (size - 1) * (a + n / (size * b))
    ranks = strided(size, 1)
    assert collective_seconds("all_gather", n / size, ranks, ONE) == pytest.approx(once)
    assert collective_seconds("reduce_scatter", n, ranks, ONE) == pytest.approx(once)
    assert collective_seconds("all_to_all", n, ranks, ONE) == pytest.approx(once)
    assert collective_seconds("all_reduce", n, ranks, ONE) == pytest.approx(2 * once)


def test_collectives_across_nodes_of_one_rank_each_take_the_inter_node_link_s_time():
    a, b, n = MANY.inter.latency_s.value, MANY.inter.rate, 64 * MB
    assert collective_seconds("reduce_scatter", n, strided(16, 8), MANY) == pytest.approx(15 * (a + n / (16 * b)))


def test_ranks_of_one_node_share_the_inter_node_link_in_a_ring_but_not_in_an_all_to_all():
    n, eight, one = 512 * MB, strided(64, 1), strided(8, 8)
    assert collective_seconds("all_reduce", n, eight, MANY) < 0.4 * collective_seconds("all_reduce", n, one, MANY)
    crossing = n * 56 / 64 / MANY.inter.rate
    assert collective_seconds("all_to_all", n, eight, MANY) == pytest.approx(crossing, rel=0.05)


def test_a_collective_of_one_rank_takes_no_time():
    assert collective_seconds("all_reduce", MB, strided(1, 1), ONE) == 0


def test_a_group_crosses_nodes_where_the_order_of_ranks_makes_it():
    layout = ParallelLayout(pp=2, dp=8, tp=4, ep=8, etp=2)
    tiers = {axis: collective_link(group_over((axis,), layout), MANY) for axis in ("tp", "etp", "ep", "dp", "pp")}
    assert tiers == {"tp": "intra", "etp": "intra", "ep": "inter", "dp": "inter", "pp": "inter"}
    assert collective_link(group_over(("dp",), ParallelLayout(dp=4, tp=2)), MANY) == "intra"


def test_a_dispatch_that_sends_a_token_to_a_node_once_never_sends_more_across():
    assert distinct_places(4, 8) == pytest.approx(4 * (1 - 0.75**8))
    ranks, routed = strided(32, 1), 128 * MB
    plain, once = (collective_seconds("all_to_all", routed, ranks, MANY, copies) for copies in (1, 8))
    assert once < 0.6 * plain
    # With as many nodes as there could ever be, no two experts of a token share one.
    wide = strided(8192, 1)
    far = dataclasses.replace(MANY, nodes=1024)
    assert collective_seconds("all_to_all", routed, wide, far, 8) == pytest.approx(
        collective_seconds("all_to_all", routed, wide, far), rel=0.01
    )
