"""What a message between two stages crosses, and its seconds.

The ranks of a stage lie together, and each sends to the one at its own place in the other stage. A stage's next one may
be on the same node while the one after is on another.
"""

from __future__ import annotations

from functools import lru_cache

from project.planner.machine.cluster import Cluster
from project.spec.layout import ParallelLayout


def tier(here: int, there: int, layout: ParallelLayout, cluster: Cluster) -> str:
    """ "intra" or "inter", from one pipeline rank to another: of their ranks' links the slowest."""
    within = _within_a_node(here, there, layout.dp * layout.tp, cluster.gpus_per_node)
    return "intra" if within else "inter"


def seconds(given: float, here: int, there: int, layout: ParallelLayout, cluster: Cluster) -> float:
    """`given` bytes by each rank: `a + n/b` of the link between them; nothing from a pipeline rank to itself."""
    if here == there:
        return 0.0
    return (cluster.intra if tier(here, there, layout, cluster) == "intra" else cluster.inter).seconds(given)


def crossings(layout: ParallelLayout, cluster: Cluster) -> int:
    """How many pipeline ranks have the next one on another node."""
    return _crossings(layout.pp, layout.dp * layout.tp, cluster.gpus_per_node)


@lru_cache(maxsize=4096)
def _crossings(pp: int, together: int, per_node: int) -> int:
    return sum(not _within_a_node(rank, rank + 1, together, per_node) for rank in range(pp - 1))


def _within_a_node(here: int, there: int, together: int, per_node: int) -> bool:
    """All pairs are where the first rank of the one and the last of the other are."""
    first, last = min(here, there) * together, (max(here, there) + 1) * together - 1
    return first // per_node == last // per_node
