"""A plan, and applying it: a table from module names (`*` matches within one level) to parallel styles, over the tp
axis or, with `Over`, over others. The styles are torch's, `ReplicatedWeights`, or those of `styles`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.distributed.tensor.parallel import parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle

from project.engine.local_shards import compute_locally, distribute
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


class ReplicatedWeights(ParallelStyle):
    """Keeps whole weights on every rank of the axis, each of which sees other tokens: their gradients are partial sums,
    which `gradients.finish_partial` adds up once a step."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        for child in module.modules():
            distribute(child, device_mesh, lambda name: [Replicate()])
            compute_locally(child, [Partial()])
        return module
