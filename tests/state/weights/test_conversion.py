"""Weights converted to Hugging Face's format and back: `transformers` computes the same, and no bit is lost."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from project.model.init import reset_buffers
from project.model.transformer import Transformer
from project.state.checkpoint.reader import Checkpoint
from project.state.weights.config_json import config_json_faults, from_config_json
from project.state.weights.conversion import from_hf, to_hf
from project.state.weights.families import to_config_json, unholdable
from project.state.weights.source import HuggingFaceFolder, open_weights
from project.state.weights.weights import Weights
from tests.harness.a_run import CASE, TEXTS, Run
from tests.harness.of_transformers import CONFIG, FAMILIES, saved_model, theirs_of, transformers
from tests.harness.outcome import relative


def unwatched(done: int, total: int) -> None: ...


def test_transformers_computes_the_run_s_logits_from_exported_weights(a_run: Run, exported: Path) -> None:
    ours = Transformer(CASE.model)
    ours.load_state_dict(a_run.tensors)
    reset_buffers(ours)
    theirs = transformers.MixtralForCausalLM.from_pretrained(exported)
    assert theirs.dtype == torch.float32
    tokens = torch.randint(0, 320, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert relative(theirs(input_ids=tokens).logits, ours(tokens)) <= 1e-5


def test_transformers_generates_from_exported_weights_with_the_run_s_tokenizer(a_run: Run, exported: Path) -> None:
    theirs = transformers.MixtralForCausalLM.from_pretrained(exported)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    ours = Tokenizer.from_file(str(a_run.folder / "tokenizer.json"))
    for text in (*TEXTS, " two  blanks , and a tab\t", "<|endoftext|>x"):
        assert tokenizer(text)["input_ids"] == ours.encode(text).ids
        assert tokenizer.decode(ours.encode(text).ids) == text
    assert tokenizer.eos_token_id == theirs.generation_config.eos_token_id == ours.token_to_id("<|endoftext|>")
    prompt = tokenizer("def f", return_tensors="pt")
    written = theirs.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(written[0]).startswith("def f")
    assert written.shape[1] > prompt["input_ids"].shape[1]


def test_weights_converted_to_hugging_face_and_back_are_bit_identical(
    a_run: Run, exported: Path, tmp_path: Path
) -> None:
    from_hf(open_weights(exported), tmp_path / "back.ckpt", unwatched)
    back = Checkpoint(tmp_path / "back.ckpt")
    back.verify()
    assert back.weights.keys() == a_run.tensors.keys()
    assert all(torch.equal(back.read(name), tensor) for name, tensor in a_run.tensors.items())
    to_hf(open_weights(tmp_path / "back.ckpt"), tmp_path / "hf", unwatched, shard_bytes=100_000)
    for file in exported.iterdir():
        assert (tmp_path / "hf" / file.name).read_bytes() == file.read_bytes(), file.name


def test_converting_keeps_bf16_weights_in_bf16(tmp_path: Path) -> None:
    theirs_of(CONFIG).bfloat16().save_pretrained(tmp_path / "theirs")
    from_hf(open_weights(tmp_path / "theirs"), tmp_path / "ckpt", unwatched)
    to_hf(open_weights(tmp_path / "ckpt"), tmp_path / "hf", unwatched)
    theirs, back = HuggingFaceFolder(tmp_path / "theirs"), HuggingFaceFolder(tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"
    assert theirs.config == back.config
    assert theirs.stored.keys() == back.stored.keys()
    before = transformers.MixtralForCausalLM.from_pretrained(tmp_path / "theirs")
    after = transformers.MixtralForCausalLM.from_pretrained(tmp_path / "hf")
    assert before.dtype == after.dtype == torch.bfloat16
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name]), name


def test_a_model_config_survives_conversion_in_both_directions(exported: Path) -> None:
    assert HuggingFaceFolder(exported).config == CASE.model
    theirs = transformers.MixtralConfig.from_pretrained(exported)
    assert theirs.rope_parameters["rope_theta"] == CASE.model.rope_theta
    assert (theirs.head_dim, theirs.num_key_value_heads, theirs.rms_norm_eps) == (16, 2, 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_each_family_comes_and_goes_back_bit_identical(family: str, tmp_path: Path) -> None:
    saved_model(tmp_path / "theirs", FAMILIES[family])
    opened = open_weights(tmp_path / "theirs")
    assert opened.config == FAMILIES[family]
    from_hf(opened, tmp_path / "ckpt", unwatched)
    to_hf(open_weights(tmp_path / "ckpt"), tmp_path / "hf", unwatched)
    before, after = (transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("theirs", "hf"))
    assert type(before) is type(after)
    assert before.config.model_type == family
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name]), name


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("qwen3_moe", {"norm_topk_prob": "yes"}, "norm_topk_prob=yes"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 36}, "shared_expert_intermediate_size=36"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size=0"),
        ("qwen2_moe", {"shared_expert_intermediate_size": "48"}, "shared_expert_intermediate_size=48"),
        ("qwen2_moe", {"shared_expert_intermediate_size": None}, "shared_expert_intermediate_size=5632"),
        ("qwen2_moe", {"moe_intermediate_size": 0}, "moe_intermediate_size=0"),
        ("qwen2_moe", {"qkv_bias": 1}, "qkv_bias=1"),
        ("qwen2_moe", {"use_sliding_window": True}, "use_sliding_window=true"),
        ("qwen2_moe", {"mlp_only_layers": [0]}, "mlp_only_layers=[0]"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv=8.0"),
        ("olmoe", {"attention_bias": True}, "attention_bias=true"),
        ("olmoe", {"head_dim": 16}, "head_dim=16"),
        ("olmoe", {"num_experts_per_tok": 17}, "num_experts_per_tok=17"),
        ("qwen3_moe", {"mlp_only_layers": [0]}, "mlp_only_layers=[0]"),
        ("qwen3_moe", {"decoder_sparse_step": 2}, "decoder_sparse_step=2"),
        ("qwen3_moe", {"num_experts": 8}, "num_experts=8"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window=true"),
        ("qwen3", {"attention_bias": True}, "attention_bias=true"),
        ("llama", {"mlp_bias": True}, "mlp_bias=true"),
        ("llama", {"tie_word_embeddings": True}, "tie_word_embeddings=true"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters.rope_type=llama3"),
        ("llama", {"architectures": ["MistralForCausalLM"]}, "architectures=[MistralForCausalLM]"),
    ],
)
def test_what_a_family_may_have_and_this_model_has_not_is_refused_by_its_key(
    family: str, changes: dict, said: str
) -> None:
    content = to_config_json(FAMILIES[family], "float32", None)
    assert not list(config_json_faults(content))
    assert said in [f"{fault.key}={fault.value}" for fault in config_json_faults(content | changes)]


def test_biases_are_read_and_there_where_transformers_takes_them_to_be() -> None:
    content = to_config_json(FAMILIES["qwen2_moe"], "float32", None)
    for value, read in ((True, True), (False, False), (None, True)):
        assert not list(config_json_faults(content | {"qkv_bias": value}))
        assert from_config_json(content | {"qkv_bias": value}).qkv_bias is read


@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe", "olmoe"])
def test_whether_scores_are_normalised_is_read_and_false_where_transformers_takes_it_for_false(family: str) -> None:
    content = to_config_json(FAMILIES[family], "float32", None)
    for value, read in ((True, True), (False, False), (None, False)):
        changed = content | {"norm_topk_prob": value}
        assert not list(config_json_faults(changed))
        assert from_config_json(changed).norm_top_k is read


def test_windows_that_are_switched_off_are_none() -> None:
    content = to_config_json(FAMILIES["qwen3"], "float32", None)
    off = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
    assert not list(config_json_faults(content | off))


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("mixtral", {"norm_top_k": False}, "model.norm_top_k=false"),
        ("mixtral", {"num_shared_experts": 1}, "model.num_shared_experts=1"),
        ("mixtral", {"qkv_bias": True}, "model.qkv_bias=true"),
        ("llama", {"qkv_bias": True}, "model.qkv_bias=true"),
        ("qwen2_moe", {"qk_norm": True}, "model.qk_norm=true"),
        ("qwen2_moe", {"score": "sigmoid"}, "model.score=sigmoid"),
        ("olmoe", {"head_dim": 16}, "model.head_dim=16"),
        ("qwen3", {"qk_norm_over": "width"}, "model.qk_norm_over=width"),
    ],
)
def test_a_model_that_no_family_computes_is_not_written(family: str, changes: dict, said: str) -> None:
    assert not unholdable(FAMILIES[family])
    found = unholdable(replace(FAMILIES[family], **changes))
    assert said in [f"{fault.key}={fault.value}" for fault in found]


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_embeddings_are_refused_by_their_key_and_a_model_untied_as_the_message_says_is_read(
    family: str, tmp_path: Path
) -> None:
    content = to_config_json(FAMILIES[family], "float32", None) | {"tie_word_embeddings": True}
    (fault,) = config_json_faults(content)
    assert (fault.key, fault.value) == ("tie_word_embeddings", "true")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**content)).eval()
    tokens = torch.randint(0, FAMILIES[family].vocab_size, (2, 16), generator=torch.Generator().manual_seed(0))
    tied = model(input_ids=tokens).logits
    _, remedy = fault.message.split("a head of its own: ")
    exec(remedy, {"model": model, "torch": torch, "folder": tmp_path / "untied"})
    read = open_weights(tmp_path / "untied")
    read.check_tensors()
    assert torch.equal(read.read("head.weight"), read.read("embedding.weight"))
    ours = Transformer(read.config)
    ours.load_state_dict({name: read_whole(read, name, len(weight.shape)) for name, weight in ours.named_parameters()})
    reset_buffers(ours)
    assert relative(ours(tokens), tied) <= 1e-5


def read_whole(weights: Weights, name: str, dims: int) -> torch.Tensor:
    if dims < 3:
        return weights.read(name)
    return torch.stack([weights.read(name, index) for index in range(weights.config.num_experts)])
