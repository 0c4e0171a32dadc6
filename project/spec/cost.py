"""Parameters and FLOPs of a model, read off the tables of its layers: MFU, the partition and the planner use them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from project.spec.layer import transformer
from project.spec.layer.implementation import Implementation, ours
from project.spec.layer.operation import Shape, Table, Weight
from project.spec.layer.transformer import Tables
from project.spec.model import ModelConfig
from project.spec.precision import width_of


@lru_cache(maxsize=1024)
def tables(config: ModelConfig, how: Implementation | None = None) -> Tables:
    """Tables for one token on one rank, from which is read what depends on neither; by this trainer if `how` is
    None."""
    return transformer.tables(config, how or ours("32-true"), Shape(1, 1), width_of("32-true"))


def weights(table: Table) -> Iterator[Weight]:
    return (weight for operation in table for weight in operation.weights)


def parameters(table: Table) -> int:
    return sum(weight.numbers for weight in weights(table))


def layer_parameters(config: ModelConfig, layer: int) -> int:
    of = tables(config)
    return parameters(of.experts if layer in config.moe_layers else of.dense)


def total_parameters(config: ModelConfig) -> int:
    of = tables(config)
    ends = parameters(of.first) + parameters(of.last)
    with_experts = len(config.moe_layers)
    dense = config.num_layers - with_experts
    return dense * parameters(of.dense) + with_experts * parameters(of.experts) + ends


def active_parameters(config: ModelConfig) -> int:
    """Parameters that one token passes through: `top_k` of the experts instead of all."""
    stacked = parameters(tuple(operation for operation in tables(config).experts if operation.part == "experts"))
    idle = stacked // config.num_experts * (config.num_experts - config.top_k)
    return total_parameters(config) - len(config.moe_layers) * idle


def layer_flops_per_token(config: ModelConfig, seq_len: int, layer: int) -> int:
    """Forward FLOPs of one layer for one token; attention counted over the full sequence, not its causal half. What a
    capacity drops, or leaves empty, is not counted: this is what the model needs when nothing is dropped."""
    return _layer_flops(config, seq_len, layer in config.moe_layers)


@lru_cache(maxsize=1024)
def _layer_flops(config: ModelConfig, seq_len: int, has_experts: bool) -> int:
    dropless = replace(config, capacity_factor=None)
    shape = Shape(config.num_experts, seq_len)  # so that each expert has a whole number of rows
    table = transformer.layer(dropless, ours("32-true"), shape, width_of("32-true"), has_experts)
    products = sum(gemm.flops for operation in table for gemm in operation.products.forward)
    return int(products + 2 * sum(operation.products.fused for operation in table)) // shape.tokens


def head_flops_per_token(config: ModelConfig) -> int:
    return int(sum(gemm.flops for operation in tables(config).last for gemm in operation.products.forward))


def train_flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """Forward and backward (twice the forward, Kaplan et al. arXiv 2001.08361), without recomputation."""
    layers = sum(layer_flops_per_token(config, seq_len, layer) for layer in range(config.num_layers))
    return 3 * (layers + head_flops_per_token(config))


def stage_costs(config: ModelConfig, seq_len: int) -> tuple[list[int], int, int]:
    """FLOPs per token of each layer, and what the first and the last stage do besides: the embedding adds up a row of
    gradients, the head is a matrix."""
    layers = [layer_flops_per_token(config, seq_len, layer) for layer in range(config.num_layers)]
    return layers, config.d_model, head_flops_per_token(config)
