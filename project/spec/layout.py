"""The layout: into how many parts the model and the batch are split, how the parts lie on the ranks, and the schedule.

`world = pp * dp * tp`, laid out pp-major and tp-minor, so that a tensor-parallel group is contiguous (one node) and so
is a stage. The experts see the same ranks through axes of their own: `edp * ep * etp = dp * tp`.
"""

from dataclasses import dataclass
from math import prod
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Strict

from project.spec.record import Count, Must

Recompute = Literal["none", "selective", "full"]
RECOMPUTE: tuple[Recompute, ...] = get_args(Recompute)
Partition = Annotated[tuple[Annotated[int, Strict()], ...], Strict()]

DENSE, EXPERT = ("pp", "dp", "tp"), ("pp", "edp", "ep", "etp")
"""The axes by which dense weights and experts see the ranks; neighbours along the last axis are neighbouring ranks."""
FLATTENED = ("ep", "etp")
"""The axes that are also taken as one, over the ranks that share the experts."""
AXES = (*((axis,) for axis in dict.fromkeys((*DENSE, *EXPERT))), FLATTENED)
"""The axes that a group of ranks may be called by: it has the name of the first that has its ranks, or else "world"."""


class Coordinates(NamedTuple):
    """The place of a rank on each axis."""

    pp: int
    dp: int
    tp: int
    edp: int
    ep: int
    etp: int


@dataclass(frozen=True)
class ParallelLayout:
    """`dp_mode` says whether a replica has whole weights, or shards of them that are gathered for use (FSDP).

    `schedule` is a name in `spec.schedules.table` or the path of a CSV file. `partition` gives the number of layers of
    each stage by hand; None balances them by cost. `recompute` may be asked for as `auto`, in whose place a plan puts
    what it stands for (`planner.recompute`) before a layout is used.
    """

    pp: Count = 1
    dp: Count = 1
    tp: Count = 1
    ep: Count = 1
    etp: Count = 1
    dp_mode: Literal["replicate", "shard"] = "replicate"
    schedule: str = "1F1B"
    microbatches: Count = 1
    virtual_stages: Count = 1
    recompute: Literal[Recompute, "auto"] = "none"
    partition: Annotated[Partition | None, Must("null or a list of whole numbers, as in [2,2,2,2]")] = None

    @property
    def world_size(self) -> int:
        return self.pp * self.dp * self.tp

    @property
    def edp(self) -> int:
        return self.dp * self.tp // (self.ep * self.etp)

    @property
    def stages(self) -> int:
        return self.pp * self.virtual_stages

    def shape(self, axes: tuple[str, ...]) -> tuple[int, ...]:
        """The number of ranks along each axis."""
        return tuple(getattr(self, axis) for axis in axes)

    def stride(self, axis: str) -> int:
        """The difference of two ranks that are neighbours along the axis."""
        view = DENSE if axis in DENSE else EXPERT
        return prod(self.shape(view[view.index(axis) + 1 :]))

    def coordinates(self, rank: int) -> Coordinates:
        return Coordinates(*(rank // self.stride(axis) % getattr(self, axis) for axis in Coordinates._fields))

    def __str__(self) -> str:
        return f"pp{self.pp} x dp{self.dp} x tp{self.tp}, experts ep{self.ep} x etp{self.etp}"
