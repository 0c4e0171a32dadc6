"""Applying a plan: a table from module name (`*` matches within one level) to a parallel style."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle

Plan = Mapping[str, ParallelStyle]


def matches(pattern: str, name: str) -> bool:
    tokens, parts = pattern.split("."), name.split(".")
    return len(tokens) == len(parts) and all(re.match(translate(t), p) for t, p in zip(tokens, parts, strict=True))


def check_plan(plan: Plan, whole_model: nn.Module) -> None:
    """A row that names nothing in the whole model is a mistake, not a row for another stage.

    Raises:
        ValueError: naming every such row.
    """
    names = [name for name, _ in whole_model.named_modules()]
    stray = [pattern for pattern in plan if not any(matches(pattern, name) for name in names)]
    if stray:
        raise ValueError(f"plan rows that match no module: {', '.join(stray)}; modules: {', '.join(outline(names))}")


def outline(names: Iterable[str]) -> list[str]:
    """Module names with indices folded into `*`, each once."""
    return sorted({re.sub(r"\.\d+", ".*", name) for name in names if name})


def apply_plan(part: nn.Module, mesh: DeviceMesh, plan: Plan) -> None:
    """Applies the rows that concern this part of the model. Weights are not scattered: each rank fills its own."""
    names = [name for name, _ in part.named_modules()]
    here = {pattern: style for pattern, style in plan.items() if any(matches(pattern, name) for name in names)}
    # In place for every row: parallelize_module returns the module it was given.
    for pattern, style in here.items():
        parallelize_module(part, mesh, {pattern: style}, src_data_rank=None)
