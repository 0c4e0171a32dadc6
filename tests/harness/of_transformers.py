"""A model of `transformers`' of the same family, with a configuration and weights of this project."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from project.spec.model import ModelConfig
from project.state.weights.families import their_name, to_config_json

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

CONFIG = ModelConfig(
    num_layers=3, d_model=32, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=48, vocab_size=96, max_seq_len=64
)
DENSE = {"num_dense_layers": 3, "num_experts": 1, "top_k": 1}
FAMILIES = {
    "mixtral": CONFIG,
    "qwen3_moe": replace(CONFIG, qk_norm=True, head_dim=24, d_ff=24, num_experts=16, top_k=5, norm_eps=1e-6),
    "olmoe": replace(
        CONFIG,
        **{"qk_norm": True, "qk_norm_over": "width", "norm_top_k": False, "head_dim": 8},
        **{"d_ff": 24, "num_experts": 16, "top_k": 5},
    ),
    "qwen2_moe": replace(
        CONFIG,
        **{"qkv_bias": True, "shared_gate": True, "num_shared_experts": 2, "norm_top_k": False},
        **{"d_ff": 24, "num_experts": 16, "top_k": 5, "norm_eps": 1e-6},
    ),
    "qwen3": replace(CONFIG, qk_norm=True, head_dim=24, **DENSE),
    "llama": replace(CONFIG, rope_theta=5e5, **DENSE),
}


def theirs_of(config: ModelConfig, ours: dict[str, Tensor] | None = None) -> Any:
    """The model in evaluation mode, with the weights `ours`, or its own initial weights."""
    content = to_config_json(config, "float32", None)
    theirs = transformers.AutoConfig.for_model(**content)
    theirs._attn_implementation = "eager"
    if ours is None:
        return transformers.AutoModelForCausalLM.from_config(theirs).eval()
    of_family = transformers.AutoModelForCausalLM._model_mapping[type(theirs)]
    return of_family.from_pretrained(None, config=theirs, state_dict=as_saved(config, ours))


def saved_model(folder: Path, config: ModelConfig = CONFIG) -> Path:
    torch.manual_seed(0)
    theirs_of(config).save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def as_saved(config: ModelConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that Hugging Face's files have."""
    saved = {}
    for name, tensor in ours.items():
        matrices = enumerate(tensor) if tensor.ndim == 3 else [(None, tensor)]
        saved |= {their_name(config, name, index): matrix.clone() for index, matrix in matrices}
    return saved


def gradients_as_saved(theirs: Any) -> dict[str, Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(theirs, {name: weight.grad for name, weight in theirs.named_parameters()})
