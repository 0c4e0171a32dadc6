"""Parameters and FLOPs of a model, counted in one place: MFU, the partition and the planner all read them here.

The tests hold the parameter counts to `numel()` of the built model.
"""

from project.model.config import ModelConfig


def attention_parameters(config: ModelConfig) -> int:
    heads_out = config.num_heads * config.head_dim
    kv_out = config.num_kv_heads * config.head_dim
    return config.d_model * (2 * heads_out + 2 * kv_out)


def expert_parameters(config: ModelConfig) -> int:
    """One expert: SwiGLU has three matrices."""
    return 3 * config.d_model * config.d_ff


def router_parameters(config: ModelConfig) -> int:
    return config.d_model * config.num_experts


def layer_parameters(config: ModelConfig) -> int:
    experts = (config.num_experts + config.num_shared_experts) * expert_parameters(config)
    return attention_parameters(config) + router_parameters(config) + experts + 2 * config.d_model


def embedding_parameters(config: ModelConfig) -> int:
    """The embedding's, and as many again in the untied head."""
    return config.vocab_size * config.d_model


def total_parameters(config: ModelConfig) -> int:
    return config.num_layers * layer_parameters(config) + config.d_model + 2 * embedding_parameters(config)


def active_parameters(config: ModelConfig) -> int:
    """Parameters that one token passes through: `top_k` of the experts instead of all."""
    idle = (config.num_experts - config.top_k) * expert_parameters(config)
    return total_parameters(config) - config.num_layers * idle


def layer_flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """Forward FLOPs of one layer for one token; attention counted over the full sequence, not its causal half."""
    experts = (config.top_k + config.num_shared_experts) * expert_parameters(config)
    matmuls = 2 * (attention_parameters(config) + router_parameters(config) + experts)
    return matmuls + 4 * seq_len * config.num_heads * config.head_dim


def head_flops_per_token(config: ModelConfig) -> int:
    return 2 * embedding_parameters(config)


def train_flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """Forward and backward (twice the forward, Kaplan et al. arXiv 2001.08361), without recomputation."""
    return 3 * (config.num_layers * layer_flops_per_token(config, seq_len) + head_flops_per_token(config))
