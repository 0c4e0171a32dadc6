"""A `config.json` that would change what is computed is refused, wherever in it that is said."""

from typing import Any

import pytest

from project.spec.model import ModelConfig
from project.state.weights.config_json import config_json_faults, from_config_json
from project.state.weights.families import MIXTRAL, to_config_json

MODEL = ModelConfig(num_layers=2, d_model=32, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=48, vocab_size=96)
CONFIG = to_config_json(MODEL, "bfloat16", 2)
NO_ROPE = {key: value for key, value in CONFIG.items() if not key.startswith("rope")}


def faults(config: dict[str, Any]) -> list[str]:
    return [f"{fault.key}={fault.value}" for fault in config_json_faults(config)]


def test_a_config_that_we_wrote_is_read_as_the_model_that_it_was_written_of() -> None:
    assert not faults(CONFIG)
    assert from_config_json(CONFIG) == MODEL


@pytest.mark.parametrize(
    ("rope", "theta"),
    [
        ({}, MIXTRAL.theta),
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 5e5),
        ({"rope_scaling": {"rope_theta": 5e5, "type": "default"}}, 5e5),
        ({"rope_scaling": None, "rope_theta": 500000}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": {"rope_theta": 5e5, "factor": 1.0}}, 5e5),
    ],
)
def test_the_base_of_positions_is_read_from_each_place_where_transformers_has_it(rope: dict, theta: float) -> None:
    assert not faults(NO_ROPE | rope)
    assert from_config_json(NO_ROPE | rope).rope_theta == theta


@pytest.mark.parametrize(
    ("rope", "said"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type=linear"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_scaling.rope_type=yarn"),
        ({"rope_scaling": {"type": "default", "rope_type": "llama3"}}, "rope_scaling.rope_type=llama3"),
        ({"rope_scaling": {"rope_type": "default", "type": "dynamic"}}, "rope_scaling.type=dynamic"),
        ({"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "su"}}, "rope_scaling.type=su"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_parameters.rope_type=longrope"),
        ({"rope_scaling": {"factor": 8.0}}, "rope_scaling.factor=8.0"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor=0.5"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "rope_parameters.full_attention={'rope_type': 'yarn'}",
        ),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, "rope_parameters.rope_theta=1000000.0"),
        ({"rope_theta": "1e4"}, "rope_theta=1e4"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_parameters.rope_theta=-1"),
        ({"rope_scaling": "linear"}, "rope_scaling=linear"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor=0.25"),
    ],
)
def test_scaled_positions_are_refused_by_the_key_that_says_so(rope: dict, said: str) -> None:
    assert said in faults(NO_ROPE | rope)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("hidden_act", "gelu"), ("hidden_activation", "gelu_pytorch_tanh"), ("tie_word_embeddings", True)),
        *(("sliding_window", 4096), ("layer_types", ["sliding_attention"]), ("norm_topk_prob", False)),
        *(("attention_bias", True), ("qkv_bias", True), ("mlp_bias", True), ("use_qk_norm", True)),
        *(("final_logit_softcapping", 30.0), ("attn_logit_softcapping", 50.0), ("logits_scaling", 8.0)),
        *(("embedding_multiplier", 12.0), ("residual_multiplier", 0.22), ("routed_scaling_factor", 2.5)),
        *(("n_shared_experts", 1), ("shared_expert_intermediate_size", 64), ("first_k_dense_replace", 1)),
        *(("scoring_func", "sigmoid"), ("n_group", 8), ("topk_method", "noaux_tc"), ("decoder_sparse_step", 2)),
        *(("quantization_config", {"quant_method": "fp8"}), ("auto_map", {"AutoModel": "x.Y"})),
        *(("attention_dropout", 0.1), ("router_jitter_noise", 0.1), ("num_experts", 8), ("num_experts_per_tok", 5)),
        *(("architectures", ["MixtralForSequenceClassification"]), ("num_hidden_layers", True), ("rms_norm_eps", -1)),
        *(("text_config", {"rope_scaling": {"type": "linear", "factor": 2.0}}), ("use_dynamic_ntk", True)),
        *(("interleave_moe_layer_step", 2), ("moe_intermediate_size", 32), ("pruned_heads", {"0": [1]})),
    ],
)
def test_a_key_that_changes_what_is_computed_is_refused_with_its_value(key: str, value: object) -> None:
    assert any(fault.startswith(f"{key}=") for fault in faults(CONFIG | {key: value}))


@pytest.mark.parametrize(
    "entries",
    [
        {"attention_bias": False, "n_shared_experts": None, "routed_scaling_factor": 1.0, "partial_rotary_factor": 1},
        {"layer_types": ["full_attention", "full_attention"], "norm_topk_prob": True, "num_experts": 4},
        {"transformers_version": "4.36.0", "_name_or_path": "x", "use_cache": False, "_attn_implementation": "sdpa"},
    ],
)
def test_keys_that_say_what_this_model_computes_are_accepted(entries: dict) -> None:
    assert not faults(CONFIG | entries)


def test_a_config_of_transformers_own_with_every_key_written_out_is_accepted() -> None:
    import json

    transformers = pytest.importorskip("transformers")
    written = json.loads(transformers.MixtralConfig(num_hidden_layers=2).to_json_string(use_diff=False))
    assert not faults(written | {"architectures": ["MixtralForCausalLM"]})
