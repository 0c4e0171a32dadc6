"""Data parallelism by shards: each replica keeps a part of every large weight, of its gradient and of its optimizer
state, and gathers the weight for use (FSDP2, `torch.distributed.fsdp.fully_shard`).

Weights that are whole on every tensor-parallel rank (norms, routers) are small and stay whole on every replica too:
the flat all-reduces of `gradients` serve them.
"""

from collections.abc import Iterable

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard

from project.engine.local_shards import MARK, show_gathered
from project.engine.mesh import Mesh


def shard_over_replicas(part: nn.Module, units: Iterable[nn.Module], mesh: Mesh) -> None:
    """Wraps each unit, and the rest of the part, with FSDP, which gathers one's weights together. Weights on another
    mesh than tp have other replicas: the modules that own them become units of their own."""
    whole = {parameter for parameter in part.parameters() if is_whole(parameter)}
    for module in part.modules():
        axes = {mesh.data_axis(p.device_mesh) for p in module.parameters(recurse=False) if isinstance(p, DTensor)}
        for axis in axes - {mesh.dp}:
            fully_shard(module, mesh=axis, shard_placement_fn=inner_dim, reshard_after_forward=False)
    for unit in (*units, part):
        fully_shard(unit, mesh=mesh.dp, shard_placement_fn=inner_dim, reshard_after_forward=False, ignored_params=whole)
    for module in part.modules():
        if hasattr(module, MARK):
            show_gathered(module)
    for sharded in sharded_modules(part):
        # The loss is divided by the number of replicas already.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def is_whole(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, DTensor) and all(placement.is_replicate() for placement in parameter.placements)


def inner_dim(parameter: nn.Parameter) -> Shard:
    """Shards a matrix, or each matrix of a stack, along its first dim, and a vector along its only one: a stack may
    have fewer matrices than there are replicas."""
    return Shard(max(parameter.ndim - 2, 0))


def sharded_modules(part: nn.Module) -> list[FSDPModule]:
    return [module for module in part.modules() if isinstance(module, FSDPModule)]


def release(part: nn.Module) -> None:
    """Frees the weights that a forward without a backward has gathered."""
    for module in sharded_modules(part):
        module.reshard()
