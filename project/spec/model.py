"""The configuration of the model: its sizes and the choices that change what it computes."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import Strict

from project.spec.record import AboveZero, Count, Flag, Must, Number

FromZero = Annotated[int, Strict(), Ge(0), Must("a whole number of at least 0")]
NotNegative = Annotated[Number, Ge(0), Must("a number of at least 0")]


@dataclass(frozen=True)
class ModelConfig:
    """A Mixtral-like decoder, or with other choices one of another family (`project.state.weights.families`); the
    defaults are the reference document's system. Values of another type than the annotations' are faults
    (`project.spec.legality.layouts`), not errors.

    `expert_balance` keeps tokens spread over the experts by an auxiliary loss, by a bias on the router's scores that no
    gradient touches (DeepSeek-V3, arXiv 2412.19437), or not at all.

    The first `num_dense_layers` layers have one feed-forward network instead, as wide as the experts that a token
    passes through (DeepSeek-V2 and -V3 are built so).

    With a `shared_gate` the output of the shared experts is multiplied by a sigmoid of the token, and with `qkv_bias`
    the projections to queries, keys and values have biases (Qwen2-MoE, arXiv 2407.10671).

    With `qk_norm` each head's query and key are normalised before they are rotated, by a norm that all heads of a layer
    share (Qwen3, arXiv 2505.09388); or, with `qk_norm_over=width`, all heads' queries together and all heads' keys
    together (OLMoE, arXiv 2409.02060).

    With `norm_top_k` the weights of a token's experts are their scores divided by the sum of these, else their scores.

    With a `capacity_factor` an expert takes at most `ceil(factor * G * top_k / num_experts)` tokens of every
    `capacity_group` G consecutive tokens of a sequence (GShard's groups, arXiv 2006.16668); what is beyond is dropped.
    None drops nothing.
    """

    num_layers: Count = 8
    d_model: Count = 1024
    num_heads: Count = 8
    num_kv_heads: Count = 8
    head_dim: Count = 128
    d_ff: Count = 4096
    num_experts: Count = 4
    top_k: Count = 2
    vocab_size: Count = 8192
    max_seq_len: Count = 4096
    num_shared_experts: FromZero = 0
    shared_gate: Flag = False
    num_dense_layers: FromZero = 0
    score: Literal["softmax", "sigmoid"] = "softmax"
    norm_top_k: Flag = True
    expert_balance: Literal["auxiliary", "bias", "none"] = "auxiliary"
    auxiliary_coefficient: NotNegative = 1e-2
    auxiliary_per: Literal["sequence", "microbatch"] = "sequence"
    z_coefficient: NotNegative = 0.0
    bias_update_rate: NotNegative = 1e-3
    capacity_factor: Annotated[AboveZero | None, Must("null or a number above 0")] = None
    capacity_group: Count = 64
    rope_theta: AboveZero = 10_000.0
    qkv_bias: Flag = False
    qk_norm: Flag = False
    qk_norm_over: Literal["head", "width"] = "head"
    norm_eps: NotNegative = 1e-5
    init_std: NotNegative = 0.02

    @property
    def moe_layers(self) -> range:
        """The layers that have experts."""
        return range(self.num_dense_layers, self.num_layers)

    @property
    def dense_d_ff(self) -> int:
        return (self.top_k + self.num_shared_experts) * self.d_ff
