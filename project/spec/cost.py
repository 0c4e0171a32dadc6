"""Parameters and FLOPs of a model, counted in one place: MFU, the partition and the planner all read them here.

The tests hold the parameter counts to `numel()` of the built model.
"""

import math
from fractions import Fraction

from project.spec.model import ModelConfig


def attention_parameters(config: ModelConfig) -> int:
    heads_out = config.num_heads * config.head_dim
    kv_out = config.num_kv_heads * config.head_dim
    return config.d_model * (2 * heads_out + 2 * kv_out)


def expert_parameters(config: ModelConfig) -> int:
    """One expert: SwiGLU has three matrices."""
    return 3 * config.d_model * config.d_ff


def router_parameters(config: ModelConfig) -> int:
    return config.d_model * config.num_experts


def dense_parameters(config: ModelConfig) -> int:
    """What a dense layer has in the place of router and experts."""
    return 3 * config.d_model * config.dense_d_ff


def layer_parameters(config: ModelConfig, layer: int) -> int:
    experts = (config.num_experts + config.num_shared_experts) * expert_parameters(config)
    moe = router_parameters(config) + experts
    inner = moe if layer in config.moe_layers else dense_parameters(config)
    return attention_parameters(config) + inner + 2 * config.d_model


def embedding_parameters(config: ModelConfig) -> int:
    """The embedding's, and as many again in the untied head."""
    return config.vocab_size * config.d_model


def total_parameters(config: ModelConfig) -> int:
    layers = sum(layer_parameters(config, layer) for layer in range(config.num_layers))
    return layers + config.d_model + 2 * embedding_parameters(config)


def active_parameters(config: ModelConfig) -> int:
    """Parameters that one token passes through: `top_k` of the experts instead of all."""
    idle = (config.num_experts - config.top_k) * expert_parameters(config)
    return total_parameters(config) - len(config.moe_layers) * idle


def layer_flops_per_token(config: ModelConfig, seq_len: int, layer: int) -> int:
    """Forward FLOPs of one layer for one token; attention counted over the full sequence, not its causal half. What a
    capacity drops, or leaves empty, is not counted: this is what the model needs when nothing is dropped."""
    experts = (config.top_k + config.num_shared_experts) * expert_parameters(config)
    moe = router_parameters(config) + experts
    inner = moe if layer in config.moe_layers else dense_parameters(config)
    return 2 * (attention_parameters(config) + inner) + 4 * seq_len * config.num_heads * config.head_dim


def head_flops_per_token(config: ModelConfig) -> int:
    return 2 * embedding_parameters(config)


def train_flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """Forward and backward (twice the forward, Kaplan et al. arXiv 2001.08361), without recomputation."""
    layers = sum(layer_flops_per_token(config, seq_len, layer) for layer in range(config.num_layers))
    return 3 * (layers + head_flops_per_token(config))


def stage_costs(config: ModelConfig, seq_len: int) -> tuple[list[int], int, int]:
    """FLOPs per token of each layer, and what the first and the last stage do besides: the embedding adds up a row of
    gradients, the head is a matrix."""
    layers = [layer_flops_per_token(config, seq_len, layer) for layer in range(config.num_layers)]
    return layers, config.d_model, head_flops_per_token(config)


def expert_slots(factor: float, group: int, assignments: int, experts: int) -> int:
    """That each expert has for a group of so many tokens: `ceil(factor * G * A / E)` of the factor as it is written,
    for 1.1 is a little more than 11/10 in binary, and 1.1 * 100 would be rounded up to 111."""
    return math.ceil(Fraction(str(factor)) * group * assignments / experts)
