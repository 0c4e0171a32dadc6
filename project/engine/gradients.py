"""Gradients after backward: the sums over ranks that are still due once an optimizer step, the norm, clipping, and
where the first one stands that is inf or nan.

The loss is divided by the number of replicas where it arises, so every reduction is a plain sum: over tp for weights
that are whole on each of its ranks and saw a part of the tokens, over dp for all dense weights, over edp for experts
(each of which has by then the gradient of every token that came to it from the ranks of its ep group).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate

from project.compat.torch_internals import clamp_in_place, norms, scale_in_place
from project.engine.local_shards import is_sharded_over_replicas
from project.engine.mesh import Mesh, gathered
from project.engine.parts import local_tensor
from project.spec.fault import Told


def finish_sums(parameters: Iterable[nn.Parameter], mesh: Mesh) -> None:
    """Completes this rank's gradients in place, once an optimizer step; collective."""
    parameters = list(parameters)
    finish_partial(parameters)
    cut_as_weights(parameters)
    sum_over_replicas(parameters, mesh)


def finish_partial(parameters: Iterable[nn.Parameter]) -> None:
    """Sums gradients whose placement is partial over their axis: those of norms and routers, whole weights under a
    sequence that is cut over ranks. Without it each rank would step its copy on its own."""
    partial = [(p, grad) for p, grad in gradients(parameters) if any(isinstance(x, Partial) for x in grad.placements)]
    sum_over_axes((grad, cast(DTensor, parameter).device_mesh) for parameter, grad in partial)
    for parameter, grad in partial:
        parameter.grad = DTensor.from_local(grad.to_local(), grad.device_mesh, [Replicate()], run_check=False)


def cut_as_weights(parameters: Iterable[nn.Parameter]) -> None:
    """Gives each gradient its weight's placements. DTensor gives every rank of tp the whole gradient of the embedding;
    each keeps that of its own rows, or replicas would send one another tp times as much as they need."""
    for parameter, grad in gradients(parameters):
        assert isinstance(parameter, DTensor)
        if grad.placements != parameter.placements:
            parameter.grad = grad.redistribute(placements=parameter.placements)


def sum_over_replicas(parameters: Iterable[nn.Parameter], mesh: Mesh) -> None:
    """Sums gradients over the replicas of their weights. FSDP has reduced those that are sharded over replicas."""
    whole = (grad for _, grad in gradients(parameters) if not is_sharded_over_replicas(grad))
    sum_over_axes((grad, mesh.data_axis(grad.device_mesh)) for grad in whole)


def gradients(parameters: Iterable[nn.Parameter]) -> list[tuple[nn.Parameter, DTensor]]:
    return [(parameter, parameter.grad) for parameter in parameters if isinstance(parameter.grad, DTensor)]


@torch.no_grad()
def sum_over_axes(grads: Iterable[tuple[DTensor, DeviceMesh]]) -> None:
    """Sums in place, with one flat all-reduce for each axis and dtype."""
    by_axis: dict = defaultdict(list)
    for grad, axis in grads:
        if axis.size() > 1:
            by_axis[axis, grad.dtype].append(grad.to_local())
    for (axis, _), locals_ in by_axis.items():
        flat = torch.cat([grad.flatten() for grad in locals_])
        dist.all_reduce(flat, group=axis.get_group())
        for grad, whole in zip(locals_, flat.split([grad.numel() for grad in locals_]), strict=True):
            grad.copy_(whole.view_as(grad))


def local_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [grad.to_local() for _, grad in gradients(parameters)]


def replicas(grad: DTensor, mesh: Mesh) -> int:
    """Returns how many of a stage's ranks hold the same gradient: all, divided by the sizes of the axes that cut it."""
    axes = enumerate(grad.placements)
    return mesh.stage_ranks // math.prod(grad.device_mesh.size(axis) for axis, x in axes if not x.is_replicate())


@torch.no_grad()
def squared_norm(parameters: Iterable[nn.Parameter], mesh: Mesh, device: torch.device) -> Tensor:
    """This rank's summand of the squared 2-norm over every gradient of the model, a float64 scalar: the ranks that hold
    the same gradient share it. The sum over all ranks is not finite if a gradient on one of them is not."""
    shares: dict[tuple[int, torch.dtype], list[Tensor]] = defaultdict(list)
    for _, grad in gradients(parameters):
        shares[replicas(grad, mesh), grad.dtype].append(grad.to_local())
    square = torch.zeros((), dtype=torch.float64, device=device)
    for (ranks, _), grads in shares.items():
        square += torch.stack(norms(grads)).double().square().sum() / ranks
    return square


def clip_to_norm(grads: Sequence[Tensor], norm: float, limit: float) -> None:
    """Scales the gradients in place if `norm`, that of the whole model's gradient, is above the limit: one coefficient
    on all ranks."""
    coefficient = limit / (norm + 1e-6)
    if grads and coefficient < 1.0:
        scale_in_place(list(grads), coefficient)


def clip_to_value(grads: Sequence[Tensor], limit: float) -> None:
    """Clamps each entry in place to at most `limit` in magnitude."""
    if grads:
        clamp_in_place(list(grads), limit)


class NotFinite(Told):
    """A step's loss or gradient norm is inf or nan; raised with the same message on all ranks."""


class Place(NamedTuple):
    """A tensor that is not finite. Places are ordered: weights before gradients, then by stage, by the position among a
    part's weights, and by rank."""

    is_gradient: bool
    stage: int
    position: int
    rank: int
    name: str

    def __str__(self) -> str:
        what = "gradient" if self.is_gradient else "weight"
        return f"the {what} of {self.name} (stage {self.stage}, rank {self.rank})"


@torch.no_grad()
def first_not_finite(parts: Iterable[tuple[int, nn.Module]]) -> Place | None:
    """Returns the first weight or gradient of the model that is inf or nan; None if all are finite; collective. `parts`
    are this rank's, by stage."""
    here = [
        Place(is_gradient, stage, position, dist.get_rank(), name)
        for stage, part in parts
        for position, (name, weight) in enumerate(part.named_parameters())
        for is_gradient, tensor in ((False, weight), (True, weight.grad))
        if tensor is not None and not local_tensor(tensor).isfinite().all()
    ]
    first = (place for place in gathered(min(here, default=None)) if place is not None)
    return min(first, default=None)
