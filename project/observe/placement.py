"""A rank's placement: its coordinates in the layout, and the layers and experts of its parameters."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor

from project.spec.layout import ParallelLayout

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
EXPERTS = re.compile(r"\.experts\.\w+$")


@dataclass(frozen=True)
class Placement:
    """A rank's coordinates, the number of its parameters, and the global indices of its layers and of its experts in
    each layer."""

    rank: int
    pp: int
    dp: int
    tp: int
    ep: int
    layers: list[int]
    experts: list[int]
    parameters: int

    def entry(self) -> dict[str, Any]:
        return asdict(self)


def placement(rank: int, layout: ParallelLayout, module: nn.Module, parameters: int) -> Placement:
    """The placement of `rank`, which holds `module` with `parameters` parameters."""
    layers, held = set(), 0
    for name, parameter in module.named_parameters():
        if layer := LAYER.search(name):
            layers.add(int(layer[1]))
        if EXPERTS.search(name):
            held = (parameter.to_local() if isinstance(parameter, DTensor) else parameter).shape[0]
    where = layout.coordinates(rank)
    experts = list(range(where.ep * held, (where.ep + 1) * held))
    return Placement(rank, where.pp, where.dp, where.tp, where.ep, sorted(layers), experts, parameters)
