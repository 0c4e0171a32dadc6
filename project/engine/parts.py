"""This rank's parts of a model: built without storage, split, and only then filled, each weight by its global name."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from project.engine.mesh import Mesh
from project.engine.plan import Plan, apply_plan, check_plan
from project.engine.recompute import recompute_layers
from project.engine.sharded_replicas import shard_over_replicas
from project.engine.split_model import SplitModel
from project.spec.layout import ParallelLayout
from project.spec.partition import Part, partition, stages_of


def build_parts(
    model: SplitModel, layout: ParallelLayout, mesh: Mesh, device: torch.device, weight_dtype: torch.dtype
) -> list[nn.Module]:
    """Builds this rank's parts, in the order of their stages.

    Raises:
        ValueError: on every rank, for what is wrong with the plan of any part.
    """
    costs, plan = model.layer_costs(), model.plan(layout)
    with torch.device("meta"):
        whole = model.build_part(Part(0, range(len(costs.layers)), True, True))
    check_plan(plan, whole)
    apply_plan(whole, mesh, plan)
    parts, here = partition(costs, layout), stages_of(mesh.pp.get_local_rank(), layout)
    built = [split(model, parts[stage], plan, layout, mesh, weight_dtype) for stage in here]
    for part in built:
        materialize(part, device, model.initial_weight)
        model.reset_part(part)
    return built


def split(
    model: SplitModel, part: Part, plan: Plan, layout: ParallelLayout, mesh: Mesh, weight_dtype: torch.dtype
) -> nn.Module:
    with torch.device("meta"):
        built = model.build_part(part)
    # Weights alone: buffers (position tables, a router's bias) are as wide as they were made.
    for parameter in built.parameters():
        parameter.data = parameter.data.to(weight_dtype)
    apply_plan(built, mesh, plan)
    recompute_layers(model.units(built), layout.recompute)
    if layout.dp_mode == "shard":
        shard_over_replicas(built, model.units(built), mesh)
    return built


def named_weights(parts: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """This rank's parameters by their global names."""
    for part in parts:
        yield from part.named_parameters()


Draw = Callable[[str, torch.Size, int | None], Tensor]


def local_tensor(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def local_slices(parameter: Tensor) -> tuple[slice, ...]:
    """Returns which part of the whole parameter this rank holds."""
    if not isinstance(parameter, DTensor):
        return tuple(slice(0, size) for size in parameter.shape)
    (shard,) = parameter.__create_chunk_list__()
    return tuple(slice(start, start + size) for start, size in zip(shard.offsets, shard.sizes, strict=True))


@torch.no_grad()
def materialize(part: nn.Module, device: torch.device, draw: Draw) -> None:
    """Gives the part storage and fills its parameters. `draw(name, shape, None)` returns a whole parameter. A parameter
    of three dims is a stack of matrices, of which only this rank's are drawn, by `draw(name, shape[1:], index)`."""
    part.to_empty(device=device)
    for name, parameter in part.named_parameters():
        here, slices = local_tensor(parameter), local_slices(parameter)
        if parameter.ndim == 3:
            for row, index in enumerate(range(slices[0].start, slices[0].stop)):
                here[row].copy_(draw(name, parameter.shape[1:], index)[slices[1:]])
        else:
            here.copy_(draw(name, parameter.shape, None)[slices])
