"""Gradients after backward: what is still a partial sum is added up, and their norm is taken over all ranks."""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Replicate


@torch.no_grad()
def reduce_partial(parameters: Iterable[nn.Parameter]) -> None:
    """One flat all-reduce per mesh for all gradients that say by their placement that they are partial sums (norms,
    router: whole weights under a cut sequence). Without it each rank would step its copy on its own."""
    by_mesh: dict = defaultdict(list)
    for parameter in parameters:
        grad = parameter.grad
        if isinstance(grad, DTensor) and any(isinstance(placement, Partial) for placement in grad.placements):
            assert grad.device_mesh.ndim == 1, "a partial gradient lives on one axis"
            by_mesh[grad.device_mesh, grad.dtype].append((parameter, grad.to_local()))
    for (mesh, _), members in by_mesh.items():
        flat = torch.cat([partial.flatten() for _, partial in members])
        if mesh.size() > 1:
            dist.all_reduce(flat, group=mesh.get_group())
        sums = flat.split([partial.numel() for _, partial in members])
        for (parameter, partial), whole in zip(members, sums, strict=True):
            parameter.grad = DTensor.from_local(whole.view_as(partial), mesh, [Replicate()], run_check=False)


def local_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    grads = (parameter.grad for parameter in parameters if parameter.grad is not None)
    return [grad._local_tensor if isinstance(grad, DTensor) else grad for grad in grads]


def replicas(tensor: Tensor) -> int:
    """How many ranks of its mesh hold the same numbers."""
    if not isinstance(tensor, DTensor):
        return 1
    axes = range(tensor.device_mesh.ndim)
    copies = [tensor.device_mesh.size(axis) for axis in axes if tensor.placements[axis].is_replicate()]
    return math.prod(copies)


@torch.no_grad()
def global_norm(parameters: Iterable[nn.Parameter], device: torch.device) -> Tensor:
    """The 2-norm over every gradient of the model, each counted once however many ranks hold it; fp64, the same bits
    on all ranks. Not finite on all ranks if it is not on one."""
    square = torch.zeros((), dtype=torch.float64, device=device)
    for parameter in parameters:
        if parameter.grad is not None:
            (local,) = local_gradients([parameter])
            wide = torch.promote_types(local.dtype, torch.float32)
            square += torch.linalg.vector_norm(local, dtype=wide).double() ** 2 / replicas(parameter.grad)
    dist.all_reduce(square)
    return square.sqrt()
