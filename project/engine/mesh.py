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
from project.spec.schedules.table import schedule_of


@dataclass(frozen=True)
class Mesh:
    """`dense` has the axes pp, dp and tp. `expert` has pp, edp, ep and etp over the same ranks; where ep == tp and
    etp == 1 it is `dense` itself, so that the expert axis *is* the tp axis. `gradients` is the group of the gradients
    between stages, where it is not that of the activations."""

    layout: ParallelLayout
    dense: DeviceMesh
    expert: DeviceMesh
    gradients: dist.ProcessGroup | None = None

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
        if self.gradients is not None:
            groups.append(("pp", self.gradients))
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
    gradients = group_of_gradients(world, layout, timeout)
    if (layout.ep, layout.etp) == (layout.tp, 1):
        return Mesh(layout, dense, dense, gradients)
    expert = device_mesh(world, device_type, EXPERT, layout.shape(EXPERT), timeout)
    return Mesh(layout, dense, expert, gradients)


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
    groups = [group_among(world, sets_along(ranks, axis), timeout) for axis in range(len(axes))]
    mesh = DeviceMesh.from_group(groups, device_type, mesh=ranks, mesh_dim_names=axes)
    if set(FLATTENED) <= set(axes):
        flat(mesh[FLATTENED])
    return mesh


def sets_along(ranks: torch.Tensor, axis: int) -> tuple[tuple[int, ...], ...]:
    """The sets of ranks that differ along the axis alone."""
    return tuple(map(tuple, ranks.movedim(axis, -1).flatten(0, -2).tolist()))


def group_of_gradients(
    world: dist.ProcessGroup | None, layout: ParallelLayout, timeout: timedelta | None = None
) -> dist.ProcessGroup | None:
    """Returns another group over the ranks of pp, for the gradients that stages send each other. NCCL runs a group's
    messages in one stream, in which a receive that is posted early holds up every later send; in two, activations and
    gradients do not wait for each other.

    None where nothing is gained: gloo's messages do not wait for one another, and the schedules of one stage a rank
    send activations and gradients in one batch, which is of one group."""
    one_by_one = layout.pp > 1 and schedule_of(layout).stages_a_rank != 1
    if world is None or world.bound_device_id is None or not one_by_one:
        return None
    ranks = torch.arange(layout.world_size).view(layout.shape(DENSE))
    sets = [list(each) for each in sets_along(ranks, DENSE.index("pp"))]
    return dist.split_group(world, sets, timeout=timeout, group_desc="gradients between stages")


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
