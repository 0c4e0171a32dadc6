"""This rank's parts of a model: built without storage, split, and only then filled."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from project.engine.materialize import materialize
from project.engine.mesh import Mesh
from project.engine.plan import Plan, apply_plan, check_plan
from project.engine.recompute import recompute_layers
from project.engine.sharded_replicas import shard_over_replicas
from project.engine.split_model import SplitModel
from project.spec.layout import ParallelLayout
from project.spec.partition import Part, partition
from project.spec.placement import stages_of


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
