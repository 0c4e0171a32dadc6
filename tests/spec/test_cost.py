"""Parameters are counted in one place, and the count is that of the built model."""

import pytest
import torch

from project.model.transformer import Transformer
from project.spec.cost import (
    active_parameters,
    layer_flops_per_token,
    layer_parameters,
    total_parameters,
    train_flops_per_token,
)
from project.spec.model import ModelConfig

CONFIGS = {
    "document": ModelConfig(),
    "grouped queries": ModelConfig(num_kv_heads=2, d_model=256, vocab_size=512),
    "shared experts": ModelConfig(num_shared_experts=2, d_model=64, d_ff=96, num_experts=8, vocab_size=128),
    "dense first layers": ModelConfig(num_dense_layers=3, num_shared_experts=1, d_model=64, d_ff=96, vocab_size=128),
    "dense layers only": ModelConfig(num_layers=2, num_dense_layers=2, d_model=64, d_ff=96, vocab_size=128),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_number_of_parameters_is_that_of_the_built_model(name: str) -> None:
    config = CONFIGS[name]
    with torch.device("meta"):
        model = Transformer(config)
    assert total_parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    for layer in range(config.num_layers):
        built = sum(parameter.numel() for parameter in model.layers[str(layer)].parameters())
        assert layer_parameters(config, layer) == built


def test_all_parameters_of_a_dense_layer_are_active() -> None:
    """A dense layer has as many active parameters as a layer with experts, apart from the router."""
    config = CONFIGS["dense first layers"]
    idle = (config.num_experts - config.top_k) * 3 * config.d_model * config.d_ff
    assert total_parameters(config) - active_parameters(config) == 5 * idle
    router = config.d_model * config.num_experts
    assert layer_parameters(config, 3) - idle - router == layer_parameters(config, 2)
    flops = [layer_flops_per_token(config, 64, layer) for layer in range(config.num_layers)]
    assert flops == [flops[7] - 2 * router] * 3 + [flops[7]] * 5


def test_the_document_s_model_has_the_parameters_that_its_arithmetic_gives() -> None:
    config = ModelConfig(vocab_size=0)
    assert total_parameters(config) == 436_257_792
    assert active_parameters(config) == 436_257_792 - 8 * 2 * 12_582_912


def test_training_flops_are_three_forward_passes() -> None:
    """One layer by hand: d=4, 1 head of 2, ff=3, 2 experts top-1, vocabulary 5, sequence 6."""
    config = ModelConfig(
        num_layers=1, d_model=4, num_heads=1, num_kv_heads=1, head_dim=2, d_ff=3, num_experts=2, top_k=1, vocab_size=5
    )
    projections, router, expert, scores, head = 4 * 4 * 2, 4 * 2, 3 * 4 * 3, 2 * 6 * 2, 4 * 5
    assert train_flops_per_token(config, 6) == 3 * 2 * (projections + router + expert + scores + head)
