"""Recomputation keeps the router's choice, and if asked the exchanged tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from project.engine.recompute import recompute_layers
from project.spec.layout import ParallelLayout
from tests.harness.case import Case, whole_model


def gradients(mode: str) -> dict[str, Tensor]:
    """The gradients of a forward whose routers would choose other experts if they were asked again in backward."""
    built = whole_model(Case(ParallelLayout()))
    recompute_layers(built.layers.values(), mode)
    logits = built(torch.arange(32).view(2, 16))
    for block in built.layers.values():
        block.moe.router.expert_bias += torch.tensor([0.0, 0.0, 9.0, 9.0])
    logits.logsumexp(-1).sum().backward()
    return {name: parameter.grad for name, parameter in built.named_parameters()}


def gradients_on_a_rank(rank: int, world_size: int, mode: str) -> dict[str, Tensor]:
    return gradients(mode)


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_recomputation_keeps_the_routing_of_the_forward(ranks: Any, mode: str) -> None:
    plain = ranks.run(1, gradients_on_a_rank, "none")[0]
    recomputed = ranks.run(1, gradients_on_a_rank, mode)[0]
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


class Noisy(nn.Module):
    """A unit that draws random numbers in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(8, 8), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.linear(x))
        x = x + 0.1 * torch.randn_like(x) * x
        return nn.functional.dropout(x, 0.3) * torch.bernoulli(torch.full_like(x, 0.5))


def noisy_gradients(rank: int, world_size: int, mode: str) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients of three microbatches in flight, and the random number that is drawn next."""
    torch.manual_seed(5)
    layers = nn.Sequential(*(Noisy() for _ in range(3)))
    recompute_layers(layers, mode)
    losses = [layers(torch.randn(4, 8)).square().sum() for _ in range(3)]
    for loss in losses:
        loss.backward()
    return {name: parameter.grad for name, parameter in layers.named_parameters()}, torch.rand(1)


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_recomputation_draws_the_random_numbers_of_the_forward(ranks: Any, mode: str) -> None:
    plain, after_plain = ranks.run(1, noisy_gradients, "none")[0]
    recomputed, after_recomputed = ranks.run(1, noisy_gradients, mode)[0]
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)
    assert torch.equal(after_plain, after_recomputed)


def test_recomputation_keeps_the_layers_and_their_names() -> None:
    layers = nn.ModuleDict({"0": nn.Linear(2, 2)})
    recompute_layers(layers.values(), "full")
    assert [name for name, _ in layers.named_parameters()] == ["0.weight", "0.bias"]
