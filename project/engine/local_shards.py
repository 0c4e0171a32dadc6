"""Modules that compute on plain local tensors while their parameters are DTensors.

DTensor divides the weights, names them in checkpoints and shards them over replicas; in forward and backward it would
cost more host time than the model. So while a batch runs, `local_shards` puts this rank's shard in the place of each
weight of a module marked by `compute_locally`, and afterwards gives the weight the shard's gradient. Where products are
computed in 16 bits the modules that multiply see a copy of the shard, made once for the batch. Weights that FSDP
gathers change within a batch; the module shows their shards for one forward at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, distribute_tensor

from project.compat.torch_internals import divided_as

MARK, MULTIPLIES = "placements_of_gradients", "multiplies_by_weights"


def distribute(module: nn.Module, mesh: DeviceMesh, placements: Callable[[str], Sequence[Placement]]) -> None:
    """Divides the module's own parameters, by their names within it. Nothing is sent: each rank fills its shards."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        sharded = distribute_tensor(parameter, mesh, placements(name), src_data_rank=None)
        module.register_parameter(name, nn.Parameter(sharded, requires_grad=parameter.requires_grad))


def compute_locally(
    module: nn.Module, placements: Sequence[Placement] | None = None, *, multiplies: bool = False
) -> None:
    """Marks a module whose forward takes plain tensors. Its weights are whole on every rank, and their gradients have
    these placements; without any, gradients are divided as the weights are: each is complete on its rank.
    `multiplies` says that it uses them in matrix products alone."""
    setattr(module, MARK, placements)
    setattr(module, MULTIPLIES, multiplies)


class Shown(NamedTuple):
    """A shard in the place of its module's weight."""

    module: nn.Module
    name: str
    weight: nn.Parameter
    shard: nn.Parameter


@contextmanager
def local_shards(parts: Iterable[nn.Module], products: torch.dtype | None = None) -> Iterator[None]:
    """Lets marked modules compute on this rank's shards, and leaves gradients at the weights, where they may have been
    before: those of several batches add up. `products` is the dtype of matrix products, if it is not the weights'."""
    shown = [show(module, name, weight) for module, name, weight in weights_to_show(parts)]
    for module, name, _, shard in shown:
        if products is not None and getattr(module, MULTIPLIES):
            # Python finds an attribute of the instance before `nn.Module` looks among the parameters.
            module.__dict__[name] = shard.to(products)
    try:
        yield
    finally:
        for one in shown:
            hide(one)


def copies(part: nn.Module) -> Iterator[Tensor]:
    """The copies of weights in the dtype of matrix products, while a batch runs."""
    for module in part.modules():
        if getattr(module, MULTIPLIES, False):
            for name, shard in module.named_parameters(recurse=False):
                if name in module.__dict__ and not isinstance(shard, DTensor):
                    yield module.__dict__[name]


def weights_to_show(parts: Iterable[nn.Module]) -> list[tuple[nn.Module, str, nn.Parameter]]:
    return [
        (module, name, weight)
        for part in parts
        for module in part.modules()
        if hasattr(module, MARK)
        for name, weight in module.named_parameters(recurse=False)
        if isinstance(weight, DTensor) and not is_sharded_over_replicas(weight)
    ]


@torch.no_grad()
def show(module: nn.Module, name: str, weight: nn.Parameter) -> Shown:
    shard = nn.Parameter(local(weight).detach(), requires_grad=weight.requires_grad)
    if weight.grad is not None:
        shard.grad = local(weight.grad)
    module.register_parameter(name, shard)
    return Shown(module, name, weight, shard)


@torch.no_grad()
def hide(shown: Shown) -> None:
    module, name, weight, shard = shown
    module.__dict__.pop(name, None)
    module.register_parameter(name, weight)
    if shard.grad is None or (weight.grad is not None and local(weight.grad) is shard.grad):
        return
    assert isinstance(weight, DTensor)
    placements, mesh = getattr(module, MARK), weight.device_mesh
    if placements is None or mesh.size() == 1:
        weight.grad = divided_as(shard.grad, weight)
    else:
        weight.grad = DTensor.from_local(shard.grad, mesh, placements, run_check=False)


def local(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.to_local()


def is_sharded_over_replicas(tensor: DTensor) -> bool:
    return not {"dp", "edp"}.isdisjoint(tensor.device_mesh.mesh_dim_names or ())


def show_gathered(module: nn.Module) -> None:
    """Shows a marked module the shards of weights that FSDP has gathered, while its forward runs."""

    def before(module: nn.Module, args: tuple) -> None:
        for name, weight in module.named_parameters(recurse=False):
            if isinstance(weight, DTensor):
                module.__dict__[name] = weight.to_local(grad_placements=getattr(module, MARK))

    def after(module: nn.Module, args: tuple, output: object) -> None:
        for name, _ in module.named_parameters(recurse=False):
            module.__dict__.pop(name, None)

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, always_call=True)
