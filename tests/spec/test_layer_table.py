"""The tables of operations are those of the modules of `project.model`: weights, names elsewhere, FLOPs."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from project.model.init import reset_buffers
from project.model.transformer import Transformer
from project.spec.cost import weights
from project.spec.layer.implementation import ours
from project.spec.layer.operation import Shape, Table
from project.spec.layer.transformer import layer, tables
from project.spec.model import ModelConfig
from project.spec.precision import width_of

# Experts so narrow that each has a product of its own, which the counter of FLOPs knows; a grouped one it does not.
SMALL = ModelConfig(
    num_layers=2,
    d_model=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=25,
    num_experts=4,
    vocab_size=64,
    max_seq_len=16,
)
MODELS = {
    "experts": SMALL,
    "shared experts": replace(SMALL, num_shared_experts=2),
    "a gated shared expert and biases": replace(SMALL, num_shared_experts=2, shared_gate=True, qkv_bias=True),
    "a norm of each head": replace(SMALL, qk_norm=True),
    "a norm over all heads": replace(SMALL, qk_norm=True, qk_norm_over="width"),
    "dense layers": replace(SMALL, num_dense_layers=2),
    "both kinds of layer": replace(SMALL, num_dense_layers=1, score="sigmoid"),
}
HOW, WIDTH, SHAPE = ours("32-true"), width_of("32-true"), Shape(2, 16)


def named(table: Table) -> dict[str, tuple[int, ...]]:
    return {weight.name: weight.shape for weight in weights(table)}


@pytest.mark.parametrize("name", MODELS)
def test_a_table_has_the_names_and_shapes_of_its_module_s_parameters(name: str) -> None:
    config = MODELS[name]
    with torch.device("meta"):
        model = Transformer(config)
    built = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    of = tables(config, HOW, SHAPE, WIDTH)
    described = {**named(of.first), **named(of.last)}
    for index in range(config.num_layers):
        table = of.experts if index in config.moe_layers else of.dense
        described |= {f"layers.{index}.{name}": shape for name, shape in named(table).items()}
    assert described == built


def test_every_weight_of_a_mixtral_has_its_name_there_and_only_what_a_mixtral_lacks_has_none() -> None:
    """A Mixtral has no dense layers and no shared experts."""
    of = tables(MODELS["shared experts"], HOW, SHAPE, WIDTH)
    unnamed = {weight.name for table in of for weight in weights(table) if weight.theirs is None}
    assert unnamed == {f"moe.shared.{name}.weight" for name in ("w1", "w2", "w3")}
    dense = {weight.name for weight in weights(layer(SMALL, HOW, SHAPE, WIDTH, False)) if weight.theirs is None}
    assert dense == {"feed_forward_norm.weight", *(f"feed_forward.{name}.weight" for name in ("w1", "w2", "w3"))}
    theirs = [weight.theirs for table in of for weight in weights(table) if weight.theirs is not None]
    assert len(theirs) == len(set(theirs)), "a name stands for one weight"


@pytest.mark.parametrize("name", MODELS)
def test_a_table_s_matrix_products_are_those_that_the_module_runs(name: str) -> None:
    """The table counts the causal half of a fused attention; torch's counter knows an attention of plain products,
    which computes all of it."""
    config = MODELS[name]
    model = Transformer(config)
    reset_buffers(model)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.zeros(SHAPE.sequences, SHAPE.seq_len, dtype=torch.int64))
    of = tables(config, HOW, SHAPE, WIDTH)
    run = [*of.last, *(one for index in range(config.num_layers) for one in of[index in config.moe_layers])]
    products = sum(gemm.flops for operation in run for gemm in operation.products.forward)
    assert products + 2 * sum(operation.products.fused for operation in run) == counter.get_total_flops()
