"""Parameters of each rank, by kind of module, read off the layers' tables; the tests hold them to the ranks' own.

All ranks of a stage hold as many: what is divided is divided evenly, or refused (`project.spec.legality.rules`).
"""

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from project.planner.cost.stages import Held, held_by, ranks_held
from project.spec.cost import tables
from project.spec.layer.implementation import Implementation
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Part

WHOLE = ("norms", "router")
"""Parts whose weights every rank of tp has whole, and a gradient of a part of the tokens for."""


class Parameters(NamedTuple):
    """Numbers of parameters on one rank, by kind of module."""

    embedding: int = 0
    attention: int = 0
    router: int = 0
    experts: int = 0
    shared: int = 0
    feed_forward: int = 0
    norms: int = 0
    head: int = 0

    @property
    def total(self) -> int:
        return sum(self)

    @property
    def whole(self) -> int:
        """On every rank of tp, and on every replica."""
        return sum(getattr(self, part) for part in WHOLE)

    @property
    def divided_over_tp(self) -> int:
        return self.embedding + self.attention + self.shared + self.feed_forward + self.head


def parameters_of(config: ModelConfig, layout: ParallelLayout, part: Part, sharded: bool | None = None) -> Parameters:
    """Parameters of one stage on one rank. `sharded` says whether replicas hold shards; None: as the layout does."""
    return divided_on(config, layout, held_by(config, part), sharded)


def parameters_on(config: ModelConfig, layout: ParallelLayout, pp_rank: int, seq_len: int) -> Parameters:
    """Parameters of all stages of a pipeline rank."""
    return divided_on(config, layout, ranks_held(config, layout, seq_len)[pp_rank])


def divided_on(config: ModelConfig, layout: ParallelLayout, held: Held, sharded: bool | None = None) -> Parameters:
    """Parameters of a rank that holds so much of the model."""
    shard = layout.dp_mode == "shard" if sharded is None else sharded
    over_tp = layout.tp * (layout.dp if shard else 1)
    over_experts = layout.ep * layout.etp * (layout.edp if shard else 1)
    return divided(config, None, held, over_tp, over_experts)


@lru_cache(maxsize=65536)
def divided(config: ModelConfig, how: Implementation | None, held: Held, over_tp: int, over_experts: int) -> Parameters:
    """Parameters of a rank among so many that the dense and the experts' weights are divided over; of this trainer's
    layers where `how` is None."""
    ranks = {None: 1, "tp": over_tp, "ep": over_experts}
    found: Counter[str] = Counter()
    for (kind, axis), numbers in _numbers(config, how, held).items():
        found[kind] += numbers // ranks[axis]
    return Parameters(**found)


def _numbers(config: ModelConfig, how: Implementation | None, held: Held) -> Counter[tuple[str, str | None]]:
    """Undivided parameters by kind, and by the axis that divides their first or last dim."""
    found: Counter[tuple[str, str | None]] = Counter()
    for count, table in zip(held, tables(config, how), strict=True):
        for operation in table if count else ():
            for weight in operation.weights:
                axis = next((axis for axis in weight.split if axis), None)
                assert (axis is None) == (operation.part in WHOLE), f"{weight.name}: its part says how it is divided"
                found[operation.part, axis] += count * weight.numbers
    return found
