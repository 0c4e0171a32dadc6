"""Names and configurations as Hugging Face's MixtralForCausalLM has them; `mixtral_config` reads one."""

from typing import Any

from project.spec.cost import tables, weights
from project.spec.fault import Fault, said
from project.spec.model import ModelConfig

# A parameter's name in its layer, and its name in the files that `save_pretrained` writes and `from_pretrained` reads,
# in transformers 4 and 5 alike. In memory transformers 5 stacks the experts as we do, with w1 and w3 in one.
NAMES = {weight.name: weight.theirs for table in tables(ModelConfig()) for weight in weights(table) if weight.theirs}

# What both have: our key, and theirs. `rope_theta` is in a section of its own.
KEYS = {
    "num_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "num_experts": "num_local_experts",
    "top_k": "num_experts_per_tok",
    "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "init_std": "initializer_range",
    "auxiliary_coefficient": "router_aux_loss_coef",
}

# What Mixtral would compute differently: our key, the values that it can hold, and why not the others.
MIXTRAL_HOLDS: dict[str, tuple[tuple[object, ...], str]] = {
    "num_shared_experts": ((0,), "has no expert that every token goes to"),
    "num_dense_layers": ((0,), "has experts in every layer"),
    "score": (("softmax",), "routes by a softmax"),
    "expert_balance": (("auxiliary", "none"), "has no bias in its router, and would send tokens to other experts"),
    "capacity_factor": ((None,), "drops no token"),
}

# What we would compute differently: their key, and the values that our model has. An absent key has the first.
WE_HOLD: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "tie_word_embeddings": (False,),
    "sliding_window": (None,),
    "attention_dropout": (0.0,),
    "router_jitter_noise": (0.0,),
    "quantization_config": (None,),
}


def mixtral_name(ours: str, index: int | None = None) -> str:
    """Mixtral's name of a parameter, or of one expert's matrix of a stacked one."""
    if not ours.startswith("layers."):
        return NAMES[ours]
    _, layer, name = ours.split(".", 2)
    return f"model.layers.{layer}.{NAMES[name]}".format(expert=index)


def unholdable(config: ModelConfig) -> list[Fault]:
    """The faults of a model that Mixtral cannot compute."""
    return [
        Fault(f"model.{key}", said(value), f"a Mixtral {why}; it can hold model.{key}={said(held[0])}")
        for key, (held, why) in MIXTRAL_HOLDS.items()
        if (value := getattr(config, key)) not in held
    ]


def to_mixtral(config: ModelConfig, dtype: str, end_of_text: int | None) -> dict[str, Any]:
    """The `config.json` of a model that Mixtral can hold; `dtype` is torch's word for it."""
    assert not unholdable(config)
    numbers = {theirs: getattr(config, ours) for ours, theirs in KEYS.items()}
    if config.expert_balance == "none":
        numbers["router_aux_loss_coef"] = 0.0
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        **numbers,
        **{key: held[0] for key, held in WE_HOLD.items() if held[0] is not None},
        "sliding_window": None,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "rope_theta": config.rope_theta,  # where transformers 4 looks
        "dtype": dtype,
        "torch_dtype": dtype,  # as transformers 4 calls it
        "bos_token_id": None,
        "eos_token_id": end_of_text,
        "pad_token_id": None,
        "use_cache": True,
    }
