"""A part that applies a weight twice in series trains under schedules that split the backward."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from project.engine.series import applies_a_weight_twice_in_series
from project.spec.layout import ParallelLayout
from project.spec.partition import Part
from tests.harness.case import Case
from tests.harness.dense_gpt import GPT, GPTModule
from tests.harness.outcome import merged
from tests.strategy.test_bring_your_own_model import fit

WEIGHT = nn.Linear(4, 4)
OTHER = nn.Linear(4, 4)


def in_a_loop(x: Tensor) -> Tensor:
    weight = WEIGHT.weight.clone()  # one node of its own, as a DTensor's local shard has
    return (x @ weight).relu() @ weight


FORWARDS = {
    "a module twice": (lambda x: WEIGHT(WEIGHT(x)), True),
    "another module in between": (lambda x: WEIGHT(OTHER(WEIGHT(x)).relu()), True),
    "a weight twice in one forward": (in_a_loop, True),
    "over a residual": (lambda x: x + WEIGHT(x + WEIGHT(x)), True),
    "two modules": (lambda x: OTHER(WEIGHT(x)), False),
    "side by side": (lambda x: WEIGHT(x) + WEIGHT(2 * x), False),
    "of weights alone": (lambda x: x @ (WEIGHT.weight @ WEIGHT.weight), False),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_a_weight_twice_in_series_is_seen_in_the_graph(name: str) -> None:
    forward, expected = FORWARDS[name]
    x = torch.randn(3, 4, requires_grad=True)
    assert applies_a_weight_twice_in_series([x], [forward(x)]) is expected


class Twice(GPT):
    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
        for layer in self.layers.values():
            x = layer(layer(x))
        return self.head(self.norm(x)) if self.last else x


class TwiceModule(GPTModule):
    def build_part(self, part: Part) -> Twice:
        return Twice(part.layers, part.first, part.last)


@pytest.mark.parametrize("schedule", ["ZBVZeroBubble", "InterleavedZeroBubble"])
def test_a_module_applied_twice_trains_where_the_backward_is_split(ranks: Any, schedule: str) -> None:
    layout = ParallelLayout(pp=2, tp=2, microbatches=4, schedule=schedule, virtual_stages=2)
    plain = ranks.run(1, fit, Case(ParallelLayout(microbatches=4), precision="64-true"), TwiceModule)[0]
    found = merged(ranks.run(4, fit, Case(layout, precision="64-true"), TwiceModule))
    assert found.losses == pytest.approx(plain.losses, rel=1e-12)
    for name, gradient in plain.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-10, atol=1e-13)
