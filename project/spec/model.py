"""What the model is, in numbers: no torch here, so that a planner can read it in milliseconds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """A Mixtral-like decoder. The defaults are the reference document's system.

    `expert_balance` says how tokens are kept spread over the experts: by an auxiliary loss, by a bias on the
    router's scores that no gradient touches (DeepSeek-V3, arXiv 2412.19437), or not at all.

    The first `num_dense_layers` layers have one feed-forward network instead, as wide as the experts that a token
    passes through (DeepSeek-V2 and -V3 are built so).

    With a `capacity_factor` an expert takes at most `ceil(factor * G * top_k / num_experts)` tokens of every
    `capacity_group` G consecutive tokens of a sequence (GShard's groups, arXiv 2006.16668); what is beyond is dropped.
    None drops nothing.
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
    num_dense_layers: int = 0
    score: Literal["softmax", "sigmoid"] = "softmax"
    expert_balance: Literal["auxiliary", "bias", "none"] = "auxiliary"
    auxiliary_coefficient: float = 1e-2
    auxiliary_per: Literal["sequence", "microbatch"] = "sequence"
    z_coefficient: float = 0.0
    bias_update_rate: float = 1e-3
    capacity_factor: float | None = None
    capacity_group: int = 64
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02

    @property
    def moe_layers(self) -> range:
        """The layers that have experts."""
        return range(self.num_dense_layers, self.num_layers)

    @property
    def dense_d_ff(self) -> int:
        return (self.top_k + self.num_shared_experts) * self.d_ff
