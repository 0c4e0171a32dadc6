"""A plan, and applying it: a table from module names (`*` matches within one level) to parallel styles, over the tp
axis or, with `Over`, over others.

Beside torch's styles there is one for modules that compute on plain local tensors while their parameters are DTensors.
DTensor cannot express the uneven all-to-all of an expert layer, and a norm or a router needs no more than the tokens of
its rank. So during `forward` the module sees its local shards; a gradient's placement says whether it is complete or a
partial sum.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle

from project.engine.mesh import Mesh


class Over(NamedTuple):
    """A style over axes of the mesh other than tp."""

    axes: tuple[str, ...]
    style: ParallelStyle


Row = ParallelStyle | Over
Plan = Mapping[str, Row]


def matches(pattern: str, name: str) -> bool:
    tokens, parts = pattern.split("."), name.split(".")
    return len(tokens) == len(parts) and all(map(fnmatchcase, parts, tokens))


def check_plan(plan: Plan, whole_model: nn.Module) -> None:
    """Checks the plan against the whole model. A row that names no module is a mistake, not a row for another stage. A
    parameter with two names would come apart: each of its modules is divided, and placed on a stage, for itself.

    Raises:
        ValueError: naming every such row or parameter.
    """
    names = [name for name, _ in whole_model.named_modules()]
    stray = [pattern for pattern in plan if not any(matches(pattern, name) for name in names)]
    if stray:
        raise ValueError(f"plan rows that match no module: {', '.join(stray)}; modules: {', '.join(outline(names))}")
    names_of = defaultdict(list)
    for name, parameter in whole_model.named_parameters(remove_duplicate=False):
        names_of[parameter].append(name)
    tied = [" = ".join(names) for names in names_of.values() if len(names) > 1]
    if tied:
        raise ValueError(f"parameters with more than one name: {', '.join(tied)}; tied weights cannot be divided")


def outline(names: Iterable[str]) -> list[str]:
    """Returns the module names with indices replaced by `*`, each once."""
    return sorted({re.sub(r"\.\d+", ".*", name) for name in names if name})


def apply_plan(part: nn.Module, mesh: Mesh, plan: Plan) -> None:
    """Applies the rows that concern this part of the model. Weights are not scattered: each rank fills its own.

    Raises:
        ValueError: naming a module that its row's style is not for, or every parameter that no row divides or
            replicates: its gradient would belong to no axis.
    """
    modules = dict(part.named_modules())
    for pattern, row in plan.items():
        axes, style = (mesh.axes(*row.axes), row.style) if isinstance(row, Over) else (mesh.tp, row)
        for name in modules:
            if matches(pattern, name):
                try:
                    parallelize_module(modules[name], axes, style, src_data_rank=None)
                except NotImplementedError as error:
                    kind = type(modules[name]).__name__
                    raise ValueError(f"plan row {pattern} cannot divide a module of type {kind}: {error}") from error
    left = [name for name, parameter in part.named_parameters() if not isinstance(parameter, DTensor)]
    if left:
        raise ValueError(f"parameters that no row of the plan concerns: {', '.join(left)}")


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
