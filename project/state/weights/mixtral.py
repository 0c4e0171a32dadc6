"""Translates names and configurations to those of Hugging Face's MixtralForCausalLM, and back."""

from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from project.spec.cost import tables, weights
from project.spec.fault import Fault, is_number, said
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
_WHOLE = {key for key, hint in get_type_hints(ModelConfig).items() if hint is int}

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
# MixtralConfig's own, for what a `config.json` leaves out.
THEIR_DEFAULTS = {"rms_norm_eps": 1e-5, "initializer_range": 0.02, "router_aux_loss_coef": 0.001}
THEIR_DEFAULT_THETA = 1_000_000.0


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


def mixtral_faults(content: object) -> Iterator[Fault]:
    """The faults of a `config.json` whose model this project cannot compute; keys are its own."""
    if not isinstance(content, Mapping) or content.get("model_type") != "mixtral":
        kind = content.get("model_type") if isinstance(content, Mapping) else content
        yield Fault("model_type", said(kind), "is not the config of a Mixtral; model_type=mixtral is what can be read")
        return
    numbers = _numbers(content)
    for ours, theirs in KEYS.items():
        value, whole = numbers.get(theirs), ours in _WHOLE
        if not is_number(value) or (whole and (type(value) is not int or value < 1)):
            yield Fault(theirs, said(value), f"must be a {'whole number of at least 1' if whole else 'number'}")
    for theirs, held in WE_HOLD.items():
        if content.get(theirs, held[0]) not in held:
            yield Fault(theirs, said(content[theirs]), f"is nothing that this model has; {theirs}={said(held[0])} is")
    rope = _rope(content)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        yield Fault("rope_parameters.rope_type", said(kind), "scales positions; rope_type=default is what there is")
    if not is_number(theta := rope.get("rope_theta", THEIR_DEFAULT_THETA)) or theta <= 0:
        yield Fault("rope_theta", said(theta), "must be a number above 0")


def from_mixtral(content: Mapping[str, Any]) -> ModelConfig:
    """The model of a `config.json` without faults. Training options, which it does not have, are our defaults."""
    numbers = _numbers(content)
    theta = _rope(content).get("rope_theta", THEIR_DEFAULT_THETA)
    return ModelConfig(**{ours: numbers[theirs] for ours, theirs in KEYS.items()}, rope_theta=float(theta))


def _numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `KEYS`, with Mixtral's defaults for absent ones."""
    given = {key: content[key] for key in KEYS.values() if content.get(key) is not None}
    heads, width = given.get("num_attention_heads"), given.get("hidden_size")
    if type(heads) is int and type(width) is int and heads > 0:
        given = {"num_key_value_heads": heads, "head_dim": width // heads} | given
    return THEIR_DEFAULTS | given


def _rope(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section on positions as transformers 5 writes it. Transformers 4 writes `rope_theta` at the top level, and a
    section only where positions are scaled."""
    section = content.get("rope_parameters") or content.get("rope_scaling") or {}
    theta = content.get("rope_theta")
    return {**({} if theta is None else {"rope_theta": theta}), **section}
