"""Process groups as sizes and strides, so that a group of any number of ranks costs a few numbers.

Ranks that differ along one axis alone are a stride apart (`project.spec.layout`: pp-major, tp-minor; within a stage
the experts' axes are edp, ep, etp). Two axes with the same ranks are one group, named by the first of them.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from project.spec.layout import AXES, ParallelLayout


class Group(NamedTuple):
    """`dims` are pairs of size and stride, the largest stride first. No dim has size 1, and adjacent dims that are
    contiguous are merged."""

    axis: str
    dims: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        ranks = 1
        for size, _ in self.dims:
            ranks *= size
        return ranks

    def members(self, rank: int) -> Iterator[int]:
        """Ranks of the group that `rank` is in."""
        first = rank - sum(rank // stride % size * stride for size, stride in self.dims)
        for places in product(*(range(size) for size, _ in self.dims)):
            yield first + sum(place * stride for place, (_, stride) in zip(places, self.dims, strict=True))

    def on_one_node(self, ranks_per_node: int) -> int:
        """Number of the group's ranks on one node of `ranks_per_node` consecutive ranks, for the group of rank 0, which
        starts at the first rank of a node."""
        return _below(self.dims, ranks_per_node)


@lru_cache(maxsize=65536)
def _below(dims: tuple[tuple[int, int], ...], room: int) -> int:
    """Number of ranks of the group whose distance from its first rank is less than `room`."""
    if not dims:
        return 1
    (size, stride), *rest = dims
    return sum(_below(tuple(rest), room - place * stride) for place in range(min(size, -(-room // stride))))


def group_over(axes: tuple[str, ...], layout: ParallelLayout) -> Group:
    return _group_over(axes, layout.pp, layout.dp, layout.tp, layout.ep, layout.etp)


@lru_cache(maxsize=65536)
def _group_over(axes: tuple[str, ...], pp: int, dp: int, tp: int, ep: int, etp: int) -> Group:
    """Cached by the degrees alone, which all schedules of a search share."""
    layout = ParallelLayout(pp=pp, dp=dp, tp=tp, ep=ep, etp=etp)
    dims = _strides(axes, layout)
    name = next(("_".join(named) for named in AXES if _strides(named, layout) == dims), "world")
    return Group(name, dims)


def _strides(axes: tuple[str, ...], layout: ParallelLayout) -> tuple[tuple[int, int], ...]:
    dims: list[tuple[int, int]] = []
    for axis in axes:
        size, stride = getattr(layout, axis), layout.stride(axis)
        if size == 1:
            continue
        if dims and dims[-1][1] == size * stride:
            dims[-1] = (dims[-1][0] * size, stride)
        else:
            dims.append((size, stride))
    return tuple(dims)
