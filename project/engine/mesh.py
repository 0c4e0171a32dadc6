"""The device meshes of a layout: one for dense weights and one for expert weights, over the same ranks."""

import math
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from project.compat.torch_internals import flattened
from project.spec.layout import AXES, DENSE, EXPERT, FLATTENED, ParallelLayout


@dataclass(frozen=True)
class Mesh:
    """`dense` has the axes pp, dp and tp. `expert` has pp, edp, ep and etp over the same ranks; where ep == tp and
    etp == 1 it is `dense` itself, so that the expert axis *is* the tp axis."""

    layout: ParallelLayout
    dense: DeviceMesh
    expert: DeviceMesh

    @cached_property
    def pp(self) -> DeviceMesh:
        return self.dense["pp"]

    @cached_property
    def dp(self) -> DeviceMesh:
        return self.dense["dp"]

    @cached_property
    def tp(self) -> DeviceMesh:
        return self.dense["tp"]

    def axes(self, *names: str) -> DeviceMesh:
        """Returns the submesh of these axes, of either mesh. Where both are one, ep is tp and etp has one rank."""
        if self.expert is self.dense and names in (("ep",), ("ep", "etp")):
            return self.tp
        return (self.dense if set(names) <= set(DENSE) else self.expert)[names]

    @cached_property
    def edp(self) -> DeviceMesh:
        return self.dp if self.expert is self.dense else self.expert["edp"]

    @property
    def stage_ranks(self) -> int:
        return self.layout.dp * self.layout.tp

    def axis_names(self) -> dict[str, str]:
        """Returns each process group's axis, by the group's name. Axes over the same ranks have the first one's name:
        see `spec.layout.AXES`. "world" is all ranks, where no axis has them."""
        known = {*(self.dense.mesh_dim_names or ()), *(self.expert.mesh_dim_names or ())}
        named = [axes for axes in AXES if known.issuperset(axes)]
        groups = [("_".join(axes), flat(self.axes(*axes)).get_group()) for axes in named]
        assert dist.group.WORLD is not None
        names: dict[str, str] = {}
        first: dict[tuple[int, ...], str] = {}
        for axis, group in (*groups, ("world", dist.group.WORLD)):
            names[group.group_name] = first.setdefault(tuple(dist.get_process_group_ranks(group)), axis)
        return names

    def data_axis(self, weight_mesh: DeviceMesh) -> DeviceMesh:
        """Returns the axis of the replicas of weights on `weight_mesh`: dp for weights divided over tp, edp for those
        divided over ep and etp."""
        return self.dp if "tp" in (weight_mesh.mesh_dim_names or ()) else self.edp


def build_mesh(layout: ParallelLayout, device_type: str, timeout: timedelta | None = None) -> Mesh:
    """Builds both meshes over the default process group, of `layout.world_size` ranks; collective. Every axis's group
    has `timeout`, which torch does not take over from the default group."""
    world = dist.group.WORLD
    dense = device_mesh(world, device_type, DENSE, layout.shape(DENSE), timeout)
    if (layout.ep, layout.etp) == (layout.tp, 1):
        return Mesh(layout, dense, dense)
    return Mesh(layout, dense, device_mesh(world, device_type, EXPERT, layout.shape(EXPERT), timeout))


@cache
def device_mesh(
    world: dist.ProcessGroup | None,
    device_type: str,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    timeout: timedelta | None = None,
) -> DeviceMesh:
    """Returns one mesh for each shape, as long as the processes are the same: DTensor caches by a mesh's ranks, and
    would mix up the groups of two equal meshes.

    All ranks make all groups here, in one order: a group made where it is first needed would wait for ranks that never
    need it."""
    ranks = torch.arange(math.prod(shape)).view(shape)
    along = [ranks.movedim(axis, -1).flatten(0, -2).tolist() for axis in range(len(axes))]
    groups = [group_among(world, tuple(map(tuple, sets)), timeout) for sets in along]
    mesh = DeviceMesh.from_group(groups, device_type, mesh=ranks, mesh_dim_names=axes)
    if set(FLATTENED) <= set(axes):
        flat(mesh[FLATTENED])
    return mesh


@cache
def group_among(
    world: dist.ProcessGroup | None, sets: tuple[tuple[int, ...], ...], timeout: timedelta | None = None
) -> dist.ProcessGroup:
    """Returns this rank's group among those over disjoint sets of ranks. There is one for each set, whatever axes it
    belongs to, for each costs: NCCL's a buffer on the GPU, gloo's a thread that wakes a hundred times a second.

    Sets of one rank, which never send, are made by their own rank alone. Where NCCL's communicators exist (the world is
    bound to a device) one split makes those of all sets."""
    if len(sets) == 1 and world is not None:
        return world
    if len(sets[0]) == 1:
        return dist.new_group([dist.get_rank()], timeout=timeout, use_local_synchronization=True)
    if world is not None and world.bound_device_id is not None:
        group = dist.split_group(world, [list(ranks) for ranks in sets], timeout=timeout)
        assert group is not None
        return group
    groups = {ranks: dist.new_group(list(ranks), timeout=timeout) for ranks in sets}
    return next(group for ranks, group in groups.items() if dist.get_rank() in ranks)


def flat(mesh: DeviceMesh) -> DeviceMesh:
    """Returns the mesh as one axis: that of several ranks, if it is the only one, else all flattened."""
    if mesh.ndim == 1:
        return mesh
    assert mesh.mesh_dim_names is not None
    if min(mesh.shape) == 1:
        return mesh[mesh.mesh_dim_names[mesh.shape.index(max(mesh.shape))]]
    return flattened(mesh)


def gathered(here: Any) -> list[Any]:
    """Returns every rank's value, by rank, on all ranks; collective. Without a process group there is one rank."""
    if not dist.is_initialized():
        return [here]
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, here)
    return everywhere
