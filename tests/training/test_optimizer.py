"""Weight decay and the learning rate's schedule."""

import pytest
import torch
from torch import nn

from project.model.transformer import Transformer
from project.spec.model import ModelConfig
from project.training.optimizer import OptimizerConfig, build_optimizer, warmup_cosine


def test_matrices_are_decayed_and_norms_and_routers_are_not() -> None:
    model = Transformer(ModelConfig(num_layers=1, d_model=16, d_ff=16, vocab_size=32))
    decayed, exempt = build_optimizer(OptimizerConfig(weight_decay=0.1), model.named_parameters()).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[p] for p in exempt["params"]} == {
        "layers.0.attention_norm.weight",
        "layers.0.moe_norm.weight",
        "layers.0.moe.router.weight",
        "norm.weight",
    }
    assert exempt["weight_decay"] == 0.0
    assert decayed["weight_decay"] == 0.1
    assert len(decayed["params"]) + len(exempt["params"]) == len(names)


def test_a_stage_with_one_kind_of_parameters_has_one_optimizer_group() -> None:
    optimizer = build_optimizer(OptimizerConfig(), [("w", nn.Parameter(torch.ones(2, 2)))])
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(("step", "factor"), [(0, 0.25), (3, 1.0), (4, 1.0), (52, 0.55), (100, 0.1), (1000, 0.1)])
def test_the_learning_rate_warms_up_and_follows_a_cosine_down(step: int, factor: float) -> None:
    actual = warmup_cosine(step, warmup_steps=4, total_steps=100, final_fraction=0.1)
    assert actual == pytest.approx(factor)
