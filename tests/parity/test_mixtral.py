"""The model is Mixtral: same weights in `transformers`' MixtralForCausalLM, same logits, loss and gradients."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from torch import Tensor

from project.model.config import ModelConfig
from project.model.transformer import Balancing, Transformer
from project.training.loss import cross_entropy
from tests.model.building import initialized

transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(
    num_layers=3, d_model=32, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=48, vocab_size=96, max_seq_len=64
)


def mixtral(config: ModelConfig) -> torch.nn.Module:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.d_ff,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps,
            num_experts_per_tok=config.top_k,
            num_local_experts=config.num_experts,
            rope_theta=config.rope_theta,
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
    )


def as_mixtral(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names and shapes in theirs; gate and up projection are one matrix there."""
    theirs = {
        "model.embed_tokens.weight": ours["embedding.weight"],
        "model.norm.weight": ours["norm.weight"],
        "lm_head.weight": ours["head.weight"],
    }
    for layer in range(CONFIG.num_layers):
        here, there = f"layers.{layer}.", f"model.layers.{layer}."
        theirs[there + "input_layernorm.weight"] = ours[here + "attention_norm.weight"]
        theirs[there + "post_attention_layernorm.weight"] = ours[here + "moe_norm.weight"]
        for name in "qkvo":
            theirs[f"{there}self_attn.{name}_proj.weight"] = ours[f"{here}attention.w{name}.weight"]
        theirs[there + "mlp.gate.weight"] = ours[here + "moe.router.weight"]
        gate, up = ours[here + "moe.experts.w1"], ours[here + "moe.experts.w3"]
        theirs[there + "mlp.experts.gate_up_proj"] = torch.cat((gate, up), dim=1)
        theirs[there + "mlp.experts.down_proj"] = ours[here + "moe.experts.w2"]
    return theirs


def relative(actual: Tensor, wanted: Tensor) -> float:
    return (torch.linalg.vector_norm(actual - wanted) / torch.linalg.vector_norm(wanted)).item()


@pytest.fixture(scope="module")
def both() -> tuple[Transformer, torch.nn.Module, Tensor, Tensor]:
    ours, theirs = initialized(CONFIG), mixtral(CONFIG)
    weights = {name: parameter.detach() for name, parameter in ours.named_parameters()}
    theirs.load_state_dict(as_mixtral(weights), strict=True)
    text = torch.randint(0, CONFIG.vocab_size, (2, 33), generator=torch.Generator().manual_seed(0))
    return ours, theirs, text[:, :-1], text[:, 1:]


def test_logits(both) -> None:
    ours, theirs, tokens, _ = both
    assert relative(ours(tokens), theirs(input_ids=tokens).logits) <= 1e-5


def test_loss_and_every_gradient(both) -> None:
    ours, theirs, tokens, targets = both
    ours.zero_grad()
    theirs.zero_grad()
    loss = cross_entropy(ours(tokens, Balancing(penalty_scale=0.0)), targets)
    logits = theirs(input_ids=tokens).logits
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    gradients = as_mixtral({name: parameter.grad for name, parameter in ours.named_parameters()})
    errors = {name: relative(gradients[name], parameter.grad) for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == errors.keys()
    assert max(errors.values()) <= 1e-5, errors
