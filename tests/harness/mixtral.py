"""`transformers`' MixtralForCausalLM with a configuration and weights of this project."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from project.spec.model import ModelConfig
from project.state.weights.mixtral import mixtral_name, to_mixtral

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

CONFIG = ModelConfig(
    num_layers=3, d_model=32, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=48, vocab_size=96, max_seq_len=64
)


def mixtral(config: ModelConfig, ours: dict[str, Tensor] | None = None) -> Any:
    """The model in evaluation mode, with the weights `ours`, or its own initial weights."""
    theirs = transformers.MixtralConfig.from_dict(to_mixtral(config, "float32", None))
    theirs._attn_implementation = "eager"
    if ours is None:
        return transformers.MixtralForCausalLM(theirs).eval()
    return transformers.MixtralForCausalLM.from_pretrained(None, config=theirs, state_dict=as_saved(ours))


def saved_mixtral(folder: Path) -> Path:
    torch.manual_seed(0)
    mixtral(CONFIG).save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def as_saved(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that Hugging Face's files have."""
    saved = {}
    for name, tensor in ours.items():
        matrices = enumerate(tensor) if tensor.ndim == 3 else [(None, tensor)]
        saved |= {mixtral_name(name, index): matrix.clone() for index, matrix in matrices}
    return saved


def gradients_as_saved(theirs: Any) -> dict[str, Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(theirs, {name: weight.grad for name, weight in theirs.named_parameters()})
