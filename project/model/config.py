"""What the model is, in numbers: no torch here, so that a planner can read it in milliseconds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """A Mixtral-like decoder. The defaults are the reference document's system.

    `expert_balance` says how tokens are kept spread over the experts: by an auxiliary loss, by a bias on the
    router's scores that no gradient touches (DeepSeek-V3, arXiv 2412.19437), or not at all.
    """

    num_layers: int = 8
    d_model: int = 1024
    num_heads: int = 8
    num_kv_heads: int = 8
    head_dim: int = 128
    d_ff: int = 4096
    num_experts: int = 4
    top_k: int = 2
    vocab_size: int = 8192
    max_seq_len: int = 4096
    num_shared_experts: int = 0
    score: Literal["softmax", "sigmoid"] = "softmax"
    expert_balance: Literal["auxiliary", "bias", "none"] = "auxiliary"
    auxiliary_coefficient: float = 1e-2
    z_coefficient: float = 0.0
    bias_update_rate: float = 1e-3
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02
