"""The weights for `init_from` have to exist, be whole and fit the model; all faults are listed at once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.harness.of_transformers import CONFIG

MODEL = [
    *(f"model.{key}={getattr(CONFIG, key)}" for key in ("num_layers", "d_model", "num_heads", "num_kv_heads")),
    *(f"model.{key}={getattr(CONFIG, key)}" for key in ("head_dim", "d_ff", "num_experts", "vocab_size")),
]
QUICK = ["data=synthetic", "data.seq_len=32"]


@pytest.fixture
def source(saved_by_transformers: Path, tmp_path: Path) -> Path:
    """A copy of the weights that a test may damage."""
    folder = tmp_path / "source"
    folder.mkdir()
    for file in saved_by_transformers.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_init_from_accepts_weights_of_the_model(source: Path, accepted: Callable[..., str]) -> None:
    assert accepted(f"init_from={source}", *MODEL, *QUICK) == ""


def test_init_from_a_path_that_does_not_exist_is_refused(complaint: Callable[..., str], tmp_path: Path) -> None:
    assert f"init_from={tmp_path}/no: {tmp_path}/no: is no folder" in complaint(f"init_from={tmp_path}/no", *QUICK)
    assert "is no checkpoint (manifest.json), no run" in complaint(f"init_from={tmp_path}", *QUICK)


def test_init_from_another_model_is_refused_key_by_key(source: Path, complaint: Callable[..., str]) -> None:
    said = complaint(f"init_from={source}", "model=tiny", *QUICK)
    assert "the config has 7 faults" in said
    assert f"model.d_model=64: {source} has 32; model.d_model=32 takes it" in said


def test_init_from_warns_of_keys_that_change_what_the_weights_mean(source: Path, accepted: Callable[..., str]) -> None:
    said = accepted(f"init_from={source}", *MODEL, *QUICK, "model.top_k=1", "model.rope_theta=5000")
    assert f"model.top_k=1: {source} was trained with 2" in " ".join(said.split())
    assert "model.rope_theta=5000" in said


def test_init_from_names_tensors_that_are_missing_misshapen_or_strange(
    source: Path, complaint: Callable[..., str]
) -> None:
    file = source / json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]["lm_head.weight"]
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].copy()
    tensors["model.other.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, file)
    said = complaint(f"init_from={source}", *MODEL, *QUICK)
    assert "model.embed_tokens.weight is missing" in said
    assert "lm_head.weight has shape [95, 32] instead of [96, 32]" in said
    assert "model.other.weight is no tensor of the model" in said


def test_init_from_names_a_file_that_the_index_names_and_that_does_not_exist(
    source: Path, complaint: Callable[..., str]
) -> None:
    gone = sorted(source.glob("*.safetensors"))[1]
    gone.unlink()
    assert f"{gone}: is missing" in complaint(f"init_from={source}", *MODEL, *QUICK)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model_type": "gpt2"},
            "model_type=gpt2: is none of what can be read: mixtral, qwen2_moe, qwen3_moe, olmoe, qwen3, llama",
        ),
        ({"model_type": "llama"}, "architectures=[MixtralForCausalLM]: is nothing that this model has"),
        ({"hidden_act": "gelu", "tie_word_embeddings": True}, "hidden_act=gelu: is nothing that this model has"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters.rope_type=yarn"),
        ({"sliding_window": 32}, "sliding_window=32"),
        ({"num_hidden_layers": "three"}, "num_hidden_layers=three: must be a whole number of at least 1"),
    ],
)
def test_init_from_a_mixtral_that_would_be_computed_differently_is_refused(
    changes: dict, said: str, source: Path, complaint: Callable[..., str]
) -> None:
    content = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(content | changes))
    assert said in complaint(f"init_from={source}", *MODEL, *QUICK)


def test_init_from_opens_no_pickle(source: Path, complaint: Callable[..., str]) -> None:
    for file in source.glob("*.safetensors*"):
        file.unlink()
    (source / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    assert "pickles (*.bin) are not opened" in complaint(f"init_from={source}", *MODEL, *QUICK)


def test_a_checkpoint_of_another_model_is_not_resumed(complaint: Callable[..., str]) -> None:
    """The sizes that its tensors have are those of the model; nothing is started to find out."""
    folder = Path(__file__).parents[1] / "state/checkpoint/made_at_3bf299f/step=2.ckpt"
    said = complaint(f"resume='{folder}'", "model=tiny", "model.d_model=96", *QUICK)
    assert "model.d_model=96: " in said
    assert "takes it" in said
