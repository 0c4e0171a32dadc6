"""A model's parameters, matrix by matrix."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from project.model.transformer import Transformer
from project.spec.model import ModelConfig


class Matrix(NamedTuple):
    """A parameter, or one expert's part of a stacked one; it is drawn, read and written as one piece."""

    name: str
    expert: int | None
    shape: tuple[int, ...]


def parameters(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter's shape, by its global name."""
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def matrices(config: ModelConfig) -> Iterator[Matrix]:
    """Every matrix of a model. A parameter of three dims is stacked over the experts, as for `materialize`."""
    for name, shape in parameters(config).items():
        if len(shape) == 3:
            yield from (Matrix(name, index, shape[1:]) for index in range(shape[0]))
        else:
            yield Matrix(name, None, shape)
