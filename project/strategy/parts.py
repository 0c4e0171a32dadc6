"""This rank's parts of a model: built without storage, split, and only then filled."""

import torch
from torch import nn

from project.parallel.data import shard_over_replicas
from project.parallel.layout import ParallelLayout
from project.parallel.materialize import materialize
from project.parallel.mesh import Mesh
from project.parallel.plan import Plan, apply_plan, check_plan
from project.parallel.recompute import recompute_layers
from project.pipeline.partition import Part, partition
from project.pipeline.placement import stages_of
from project.strategy.module import HybridModule


def build_parts(
    module: HybridModule, layout: ParallelLayout, mesh: Mesh, device: torch.device, weight_dtype: torch.dtype
) -> list[nn.Module]:
    """In the order of their stages.

    Raises:
        ValueError: on every rank, for what is wrong with the plan of any part.
    """
    costs, plan = module.layer_costs(), module.plan(layout)
    with torch.device("meta"):
        whole = module.build_part(Part(0, range(len(costs.layers)), True, True))
    check_plan(plan, whole)
    apply_plan(whole, mesh, plan)
    parts, here = partition(costs, layout), stages_of(mesh.pp.get_local_rank(), layout)
    built = [split(module, parts[stage], plan, layout, mesh, weight_dtype) for stage in here]
    for part in built:
        materialize(part, device, module.initial_weight)
        module.reset_part(part)
    return built


def split(
    module: HybridModule, part: Part, plan: Plan, layout: ParallelLayout, mesh: Mesh, weight_dtype: torch.dtype
) -> nn.Module:
    with torch.device("meta"):
        built = module.build_part(part)
    # Weights alone: buffers (position tables, a router's bias) are as wide as they were made.
    for parameter in built.parameters():
        parameter.data = parameter.data.to(weight_dtype)
    apply_plan(built, mesh, plan)
    recompute_layers(module.units(built), layout.recompute)
    if layout.dp_mode == "shard":
        shard_over_replicas(built, module.units(built), mesh)
    return built
