"""Parallel styles whose module computes on plain local tensors while its parameters are DTensors.

DTensor cannot express the uneven all-to-all of an expert layer, and a norm or a router needs no more than the tokens of
its rank. So during `forward` the module sees its local shards; a gradient's placement says whether it is complete or a
partial sum.
"""

from collections.abc import Callable, Sequence

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, distribute_tensor
from torch.distributed.tensor.parallel.style import ParallelStyle


def distribute(module: nn.Module, mesh: DeviceMesh, placements: Callable[[str], Sequence[Placement]]) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        sharded = distribute_tensor(parameter, mesh, placements(name), src_data_rank=None)
        module.register_parameter(name, nn.Parameter(sharded, requires_grad=parameter.requires_grad))


def compute_on_local_shards(module: nn.Module, grad_placements: Sequence[Placement] | None = None) -> None:
    """Shadows each parameter by its local shard while `forward` runs. Python finds an attribute of the instance before
    `nn.Module` looks among the parameters, so names and registration stay."""

    def show(module: nn.Module, args: tuple) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            assert isinstance(parameter, DTensor)
            module.__dict__[name] = parameter.to_local(grad_placements=grad_placements)

    def hide(module: nn.Module, args: tuple, output: object) -> None:
        for name, _ in module.named_parameters(recurse=False):
            module.__dict__.pop(name, None)

    module.register_forward_pre_hook(show)
    module.register_forward_hook(hide, always_call=True)


class ReplicatedWeights(ParallelStyle):
    """Keeps whole weights on every rank of the axis, each of which sees other tokens: their gradients are partial sums,
    which `gradients.finish_partial` adds up once a step."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        for child in module.modules():
            distribute(child, device_mesh, lambda name: [Replicate()])
            compute_on_local_shards(child, [Partial()])
        return module
