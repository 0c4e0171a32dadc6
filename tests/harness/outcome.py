"""The outcome of a training run, and the comparison of two."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from project.model.transformer import Transformer

TOLERANCE = {"32-true": 1e-5, "64-true": 1e-12}
"""Largest relative error of a loss, a norm or a gradient against the one-rank fp64 oracle, by precision."""


@dataclass
class Outcome:
    """Losses and gradient norms of every step; whole tensors by global name: the gradients of the first step before
    clipping, the weights before the first and after the last step, the expert biases after the last."""

    losses: list[float] = field(default_factory=list)
    auxiliary_losses: list[float] = field(default_factory=list)
    dropped_fractions: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    initial: dict[str, Tensor] = field(default_factory=dict)
    final: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)


def merged(outcomes: Sequence[Any]) -> Any:
    """The whole model's outcome from those of all ranks: tensors by name come from the ranks that hold them.

    Raises:
        AssertionError: if replicas of a tensor differ, or ranks report different numbers.
    """
    together = replace(outcomes[0])
    for entry in fields(together):
        first, *others = (getattr(outcome, entry.name) for outcome in outcomes)
        if not isinstance(first, dict):
            assert all(other == first for other in others), f"ranks report different {entry.name}"
            continue
        collected = dict(first)
        for name, tensor in chain.from_iterable(other.items() for other in others):
            assert name not in collected or torch.equal(collected[name], tensor), f"replicas of {name} differ"
            collected[name] = tensor
        setattr(together, entry.name, collected)
    return together


def relative(actual: Tensor, wanted: Tensor, whole: float = 1.0) -> float:
    """The norm of the difference, relative to the norm of `wanted`; relative to `whole`, the norm of everything that is
    compared, where `wanted` is zero up to rounding (as a top-1 router's gradient is, whose renormalised weight is 1).
    """
    norm = torch.linalg.vector_norm(wanted.double()).item()
    distance = torch.linalg.vector_norm(actual.double() - wanted.double()).item()
    return distance / (norm if norm > 1e-14 * whole else whole)


def check_step(actual: Outcome, wanted: Outcome, tolerance: float) -> None:
    """Asserts that the first step's losses, norm and every gradient agree to `tolerance`, relative."""
    assert actual.losses[0] == pytest.approx(wanted.losses[0], rel=tolerance)
    assert actual.auxiliary_losses[0] == pytest.approx(wanted.auxiliary_losses[0], rel=tolerance)
    assert actual.dropped_fractions[0] == pytest.approx(wanted.dropped_fractions[0], rel=tolerance)
    assert actual.grad_norms[0] == pytest.approx(wanted.grad_norms[0], rel=tolerance)
    assert actual.gradients.keys() == wanted.gradients.keys()
    whole = wanted.grad_norms[0]
    errors = {name: relative(actual.gradients[name], wanted.gradients[name], whole) for name in wanted.gradients}
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] <= tolerance, f"gradient of {worst} is off by {errors[worst]:.1e}"


def copies(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in named}


def biases(model: Transformer) -> dict[str, Tensor]:
    return {name: buffer.cpu().clone() for name, buffer in model.named_buffers() if name.endswith("expert_bias")}
