"""Seconds that a collective takes, by what it crosses.

Per rank, with g ranks, buffer n, latency a and bandwidth b: all-gather and reduce-scatter `(g-1)(a + n/(g b))`, an
all-reduce twice that, a pairwise all-to-all as an all-gather (Thakur et al., IJHPCA 19(1), 2005); messages between
stages are in `project.planner.cost.message`.
Where a group spans nodes, a ring's steps inside a node and between two overlap, and each node's ranks share what
crosses: the slower tier decides the bandwidth.
"""

from __future__ import annotations

from project.planner.machine.cluster import Cluster
from project.planner.machine.group import Group


def nodes_of(ranks: Group, cluster: Cluster) -> int:
    return -(-ranks.size // ranks.on_one_node(cluster.gpus_per_node))


def tier(ranks: Group, cluster: Cluster) -> str:
    """ "intra" or "inter": of the links that it uses the slowest."""
    return "inter" if nodes_of(ranks, cluster) > 1 else "intra"


def seconds(collective: str, given: float, ranks: Group, cluster: Cluster, copies: int = 1) -> float:
    """`given` bytes by each rank: its part for an all-gather, the whole buffer for the others.

    With `copies` of each token in it an all-to-all sends a token once to each of the other nodes that have any of its
    experts, and there once to each rank, when experts are chosen evenly.
    """
    if ranks.size == 1:
        return 0.0
    size, inside, nodes = ranks.size, ranks.on_one_node(cluster.gpus_per_node), nodes_of(ranks, cluster)
    whole = given * size if collective == "all_gather" else given
    latency = (nodes - 1) * cluster.inter.latency_s.value + (size - nodes) * cluster.intra.latency_s.value
    if collective == "all_to_all":
        to_ranks = whole * distinct(size, copies) / copies
        within = to_ranks * (inside - 1) / inside / cluster.intra.rate
        across = whole * distinct(nodes, copies) / copies * (nodes - 1) / nodes / cluster.inter.rate
        if copies == 1:
            within = whole * (inside - 1) / size / cluster.intra.rate
    else:
        within = whole * (size - 1) / size / cluster.intra.rate if inside > 1 else 0.0
        across = whole * (nodes - 1) / nodes / (inside * cluster.inter.rate)
    once = latency + max(within, across)
    return 2 * once if collective == "all_reduce" else once


def distinct(places: int, copies: int) -> float:
    """Of so many places, how many get one of the copies when each goes to any of them alike."""
    return places * (1 - (1 - 1 / places) ** copies)
