"""What a model consists of, matrix by matrix."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from project.model.transformer import Transformer
from project.spec.model import ModelConfig


class Matrix(NamedTuple):
    """A parameter, or one expert's part of a stacked one: what is drawn, read and written at a time."""

    name: str
    expert: int | None
    shape: tuple[int, ...]


def parameters(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter's shape, by its global name."""
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def matrices(config: ModelConfig) -> Iterator[Matrix]:
    """A stacked parameter is one of three dims, as for `materialize`."""
    for name, shape in parameters(config).items():
        if len(shape) == 3:
            yield from (Matrix(name, index, shape[1:]) for index in range(shape[0]))
        else:
            yield Matrix(name, None, shape)
