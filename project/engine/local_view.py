"""Parallel styles whose module computes on plain local tensors while its parameters are DTensors.

DTensor cannot express what happens inside an expert layer (uneven all-to-all), and for a norm or a router the tokens
here are all there is to know. So during `forward` the module sees its local shards; the gradient that comes back says
by its placement whether it is whole.
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
    """Shadows each parameter by its local shard while `forward` runs. An attribute of the instance is found before
    `nn.Module` looks among the parameters, so that names and registration stay as they are."""

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
    """Whole weights on every rank of the axis, each seeing other tokens: gradients are partial sums, added up once
    a step by `gradients.finish_partial`."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        for child in module.modules():
            distribute(child, device_mesh, lambda name: [Replicate()])
            compute_on_local_shards(child, [Partial()])
        return module
