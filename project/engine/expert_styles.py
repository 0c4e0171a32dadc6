"""Parallel styles of expert parallelism over the axes ep and etp: ep gives each rank whole experts, etp a slice of each
along d_ff (column-row). Where ep is the tp axis there is no etp."""

from collections.abc import Mapping, Sequence

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement
from torch.distributed.tensor.parallel.style import ParallelStyle

from project.engine.collective import SumOverRanks
from project.engine.dispatch import AllToAllDispatch
from project.engine.local_view import compute_on_local_shards, distribute
from project.engine.mesh import flat
from project.model.dispatch import LocalDispatch
from project.model.moe import MoE


class DispatchOverRanks(ParallelStyle):
    """Replaces the local dispatch of a `MoE` by the all-to-all."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, MoE)
        assert isinstance(module.dispatch, LocalDispatch)
        ep, etp = (*device_mesh.shape, 1)[:2]
        module.dispatch = AllToAllDispatch(module.dispatch, flat(device_mesh).get_group(), ep, etp)
        return module


class ShardedExperts(ParallelStyle):
    """Shards stacked weights as `placements` says, over ep and over etp. A shard's gradient is complete on its rank, to
    which all its tokens came."""

    def __init__(self, placements: Mapping[str, Sequence[Placement]]) -> None:
        self.placements = placements

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        distribute(module, device_mesh, lambda name: self.placements[name][: device_mesh.ndim])
        compute_on_local_shards(module)
        return module


class SummedOverRanks(ParallelStyle):
    """Adds a module's output over the axis: the statistics of a sequence that is cut over it."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        group = device_mesh.get_group()
        module.register_forward_hook(lambda module, args, output: SumOverRanks.apply(output, group))
        return module
