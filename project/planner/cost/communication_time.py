"""Seconds of what ranks send, by the links that it crosses: collectives, messages between stages, transfers of a step.

Per rank, with g ranks, buffer n, latency a and bandwidth b: all-gather and reduce-scatter `(g-1)(a + n/(g b))`, an
all-reduce twice that, a pairwise all-to-all as an all-gather (Thakur et al., IJHPCA 19(1), 2005); a message `a + n/b`.
Where a group spans nodes, a ring's steps inside a node and between two overlap, and each node's ranks share what
crosses: the slower link decides the bandwidth. The ranks of a stage lie together; a stage's next one may be on the same
node while the one after is on another.
"""

from functools import lru_cache

from project.planner.cost.traffic import Transfer
from project.planner.machine.cluster import Cluster
from project.planner.machine.group import Group
from project.planner.step import Step
from project.spec.layout import ParallelLayout


def nodes_of(ranks: Group, cluster: Cluster) -> int:
    return -(-ranks.size // ranks.on_one_node(cluster.gpus_per_node))


def collective_link(ranks: Group, cluster: Cluster) -> str:
    """The slowest link that a collective uses: "intra" within a node, "inter" between nodes."""
    return "inter" if nodes_of(ranks, cluster) > 1 else "intra"


def collective_seconds(collective: str, given: float, ranks: Group, cluster: Cluster, copies: int = 1) -> float:
    """Seconds of one collective. `given` is the bytes of each rank's part for an all-gather, of its whole buffer for
    the other collectives.

    With `copies` of each token in it an all-to-all sends a token once to each of the other nodes that have any of its
    experts, and there once to each rank, when experts are chosen evenly.
    """
    if ranks.size == 1:
        return 0.0
    size, inside, nodes = ranks.size, ranks.on_one_node(cluster.gpus_per_node), nodes_of(ranks, cluster)
    whole = given * size if collective == "all_gather" else given
    latency = (nodes - 1) * cluster.inter.latency_s.value + (size - nodes) * cluster.intra.latency_s.value
    if collective == "all_to_all":
        to_ranks = whole * distinct_places(size, copies) / copies
        within = to_ranks * (inside - 1) / inside / cluster.intra.rate
        across = whole * distinct_places(nodes, copies) / copies * (nodes - 1) / nodes / cluster.inter.rate
        if copies == 1:
            within = whole * (inside - 1) / size / cluster.intra.rate
    else:
        within = whole * (size - 1) / size / cluster.intra.rate if inside > 1 else 0.0
        across = whole * (nodes - 1) / nodes / (inside * cluster.inter.rate)
    once = latency + max(within, across)
    return 2 * once if collective == "all_reduce" else once


def distinct_places(places: int, copies: int) -> float:
    """Expected number of `places` that get at least one of `copies`, when each copy goes to any place alike."""
    return places * (1 - (1 - 1 / places) ** copies)


def message_link(here: int, there: int, layout: ParallelLayout, cluster: Cluster) -> str:
    """The slowest link between the ranks of two pipeline ranks: "intra" or "inter". Each rank sends to the one at its
    own place in the other stage."""
    within = _within_a_node(here, there, layout.dp * layout.tp, cluster.gpus_per_node)
    return "intra" if within else "inter"


def message_seconds(given: float, here: int, there: int, layout: ParallelLayout, cluster: Cluster) -> float:
    """Seconds of a message of `given` bytes from each rank: `a + n/b` of the link; 0 from a pipeline rank to itself."""
    if here == there:
        return 0.0
    return (cluster.intra if message_link(here, there, layout, cluster) == "intra" else cluster.inter).seconds(given)


def crossings(layout: ParallelLayout, cluster: Cluster) -> int:
    """Number of pipeline ranks whose next one is on another node."""
    return _crossings(layout.pp, layout.dp * layout.tp, cluster.gpus_per_node)


@lru_cache(maxsize=4096)
def _crossings(pp: int, together: int, per_node: int) -> int:
    return sum(not _within_a_node(rank, rank + 1, together, per_node) for rank in range(pp - 1))


def _within_a_node(here: int, there: int, together: int, per_node: int) -> bool:
    """True if all pairs of ranks share a node: they do if the first and the last rank of both stages do."""
    first, last = min(here, there) * together, (max(here, there) + 1) * together - 1
    return first // per_node == last // per_node


def transfer_link(transfer: Transfer, step: Step, cluster: Cluster) -> str:
    """The slowest link that a transfer of a step uses: "intra" or "inter"."""
    if (ends := _ends(transfer, step)) is not None:
        return message_link(*ends, step.layout, cluster)
    return collective_link(transfer.group, cluster)


def transfer_seconds(transfer: Transfer, step: Step, cluster: Cluster) -> float:
    """Seconds of one call of a transfer. A message takes its time where it is sent, none where it is received."""
    if transfer.collective == "recv":
        return 0.0
    if (ends := _ends(transfer, step)) is not None:
        return message_seconds(transfer.given, *ends, step.layout, cluster)
    return collective_seconds(transfer.collective, transfer.given, transfer.group, cluster)


def _ends(transfer: Transfer, step: Step) -> tuple[int, int] | None:
    """The pipeline ranks at both ends of a message; None for a collective."""
    if transfer.stage is None or transfer.neighbour is None:
        return None
    return step.rank_of_stage[transfer.stage], step.rank_of_stage[transfer.neighbour]
