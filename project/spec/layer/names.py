"""Names of a layer's feed-forward weights in Hugging Face's files, which differ by the family of a model."""

from typing import NamedTuple

from project.spec.model import ModelConfig


class Names(NamedTuple):
    """Relative to the layer: of the router's weight, and what stands before the three matrices of an expert, `{expert}`
    being its index, of a dense layer, or of the shared experts; the matrices that are w1, w3 and w2 here; and the
    weight of the shared experts' gate."""

    router: str
    expert: str
    dense: str
    w1: str
    w3: str
    w2: str
    shared: str | None = None
    shared_gate: str | None = None

    def of(self, prefix: str) -> tuple[str, str, str]:
        return (f"{prefix}{self.w1}.weight", f"{prefix}{self.w3}.weight", f"{prefix}{self.w2}.weight")


MIXTRAL = Names("block_sparse_moe.gate.weight", "block_sparse_moe.experts.{expert}.", "", "w1", "w3", "w2")
MLP = Names("mlp.gate.weight", "mlp.experts.{expert}.", "mlp.", "gate_proj", "up_proj", "down_proj")
"""Of Llama, Qwen3, Qwen3-MoE and OLMoE."""
QWEN2_MOE = MLP._replace(shared="mlp.shared_expert.", shared_gate="mlp.shared_expert_gate.weight")


def names_of(config: ModelConfig) -> Names:
    if config.moe_layers and config.shared_gate:
        return QWEN2_MOE
    return MIXTRAL if config.moe_layers and not config.qk_norm else MLP
