"""The families of transformers' models that a model of this project can be one of: their keys, and our model as their
`config.json`. `config_json` reads one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from project.spec.cost import tables, weights
from project.spec.fault import Fault, said
from project.spec.model import ModelConfig

# Our key, and that of all families. `rope_theta` is in a section of its own.
COMMON = {
    "num_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "init_std": "initializer_range",
}
OF_EXPERTS = {
    "num_experts": "num_local_experts",
    "top_k": "num_experts_per_tok",
    "auxiliary_coefficient": "router_aux_loss_coef",
}
OTHERWISE = {"num_experts": "num_local_experts"}
"""Other names of theirs, which they take for the same."""


# Our keys that choose a family, as most families have them.
KIND: dict[str, Any] = {"shared_gate": False, "qkv_bias": False, "qk_norm": False, "qk_norm_over": "head"}


@dataclass(frozen=True)
class Family:
    """`keys` are those that both have, ours first. `defaults` and `theta` are what transformers takes for keys that a
    `config.json` leaves out. `says` is what the file says besides, in every model that we can compute, and what
    transformers takes where it is left out. `without` names keys that have no effect while another one is false. `ours`
    are our keys that theirs have no name for, whose values make the family. `shared_width` is the width of all shared
    experts together."""

    model_type: str
    architecture: str
    keys: Mapping[str, str]
    theta: float
    defaults: Mapping[str, Any] = field(default_factory=dict)
    says: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    shared_width: str | None = None

    @property
    def has_experts(self) -> bool:
        return "num_experts" in self.keys

    @property
    def norms_heads_together(self) -> bool:
        """Its norms of queries and keys are as wide as the hidden size, so that all heads together are."""
        return self.ours.get("qk_norm_over") == "width"

    def held(self) -> dict[str, Any]:
        """Our keys that choose a family, and the values that this one has."""
        return {key: value for key, value in {**KIND, **self.ours}.items() if key not in self.keys}

    def differences(self, config: ModelConfig) -> dict[str, Any]:
        """The keys in which the model is none of this family, with the values that would be."""
        return {key: value for key, value in self.held().items() if getattr(config, key) != value}

    def takes(self, ours: str) -> bool:
        """A `config.json` says it."""
        return ours in self.keys or (ours == "num_shared_experts" and self.shared_width is not None)


_WINDOWS = {"sliding_window": "use_sliding_window", "max_window_layers": "use_sliding_window"}
_NUMBERS = {"initializer_range": 0.02, "router_aux_loss_coef": 0.001}
_NORM_TOP_K = {"norm_top_k": "norm_topk_prob"}
MIXTRAL = Family(
    *("mixtral", "MixtralForCausalLM", COMMON | OF_EXPERTS, 1e6),
    defaults=_NUMBERS | {"rms_norm_eps": 1e-5},
)
QWEN3_MOE = Family(
    *("qwen3_moe", "Qwen3MoeForCausalLM"),
    *(COMMON | OF_EXPERTS | _NORM_TOP_K | {"d_ff": "moe_intermediate_size"}, 1e4),
    defaults=_NUMBERS | {"rms_norm_eps": 1e-6, "num_key_value_heads": 4, "norm_topk_prob": False},
    says={"decoder_sparse_step": 1, "mlp_only_layers": []},
    without=_WINDOWS,
    ours={"qk_norm": True},
)
OLMOE = Family(
    *("olmoe", "OlmoeForCausalLM", COMMON | OF_EXPERTS | _NORM_TOP_K, 1e4),
    defaults=_NUMBERS | {"rms_norm_eps": 1e-5, "router_aux_loss_coef": 0.01, "norm_topk_prob": False},
    ours={"qk_norm": True, "qk_norm_over": "width"},
)
QWEN2_MOE = Family(
    *("qwen2_moe", "Qwen2MoeForCausalLM"),
    *(COMMON | OF_EXPERTS | _NORM_TOP_K | {"d_ff": "moe_intermediate_size", "qkv_bias": "qkv_bias"}, 1e4),
    defaults=_NUMBERS
    | {"rms_norm_eps": 1e-6, "num_key_value_heads": 16, "norm_topk_prob": False, "qkv_bias": True}
    | {"shared_expert_intermediate_size": 5632},
    says={"decoder_sparse_step": 1, "mlp_only_layers": []},
    without=_WINDOWS,
    ours={"shared_gate": True},
    shared_width="shared_expert_intermediate_size",
)
QWEN3 = Family(
    *("qwen3", "Qwen3ForCausalLM", COMMON, 1e4),
    defaults=_NUMBERS | {"rms_norm_eps": 1e-6, "num_key_value_heads": 32, "head_dim": 128},
    without=_WINDOWS,
    ours={"qk_norm": True},
)
LLAMA = Family("llama", "LlamaForCausalLM", COMMON, 1e4, defaults=_NUMBERS | {"rms_norm_eps": 1e-6})
FAMILIES = {family.model_type: family for family in (MIXTRAL, QWEN2_MOE, QWEN3_MOE, OLMOE, QWEN3, LLAMA)}

# What the families would compute differently: our key, the values that they can hold, and why not the others.
HELD: dict[str, tuple[tuple[object, ...], str]] = {
    "num_shared_experts": ((0,), "has no expert that every token goes to"),
    "score": (("softmax",), "routes by a softmax"),
    "norm_top_k": ((True,), "divides the scores of a token's experts by their sum"),
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


def family_of(config: ModelConfig) -> Family:
    """The family that computes what the model does, if one does (`unholdable`), else the nearest."""
    alike = (family for family in FAMILIES.values() if family.has_experts == bool(config.moe_layers))
    return min(alike, key=lambda family: len(family.differences(config)))


@lru_cache(maxsize=64)
def names(config: ModelConfig) -> dict[str, str]:
    """A parameter's name in its layer, and its name in the files that `save_pretrained` writes and `from_pretrained`
    reads, in transformers 4 and 5 alike. In memory transformers 5 stacks the experts as we do, with w1 and w3 in
    one."""
    return {weight.name: weight.theirs for table in tables(config) for weight in weights(table) if weight.theirs}


def their_name(config: ModelConfig, ours: str, index: int | None = None) -> str:
    """The family's name of a parameter, or of one expert's matrix of a stacked one."""
    if not ours.startswith("layers."):
        return names(config)[ours]
    _, layer, name = ours.split(".", 2)
    return f"model.layers.{layer}.{names(config)[name]}".format(expert=index)


def unholdable(config: ModelConfig) -> list[Fault]:
    """The faults of a model that its family cannot compute."""
    family = family_of(config)
    called = family.architecture.removesuffix("ForCausalLM")
    found = [
        Fault(f"model.{key}", said(value), f"a {called} {why}; it can hold model.{key}={said(held[0])}")
        for key, (held, why) in HELD.items()
        if config.moe_layers and not family.takes(key) and (value := getattr(config, key)) not in held
    ]
    for key, held in family.differences(config).items():
        why = f"no family has it with the rest; a {called} can hold model.{key}={said(held)}"
        found.append(Fault(f"model.{key}", said(getattr(config, key)), why))
    width = config.num_heads * config.head_dim
    if family.norms_heads_together and width != config.d_model:
        wide = f"queries as wide as model.d_model={config.d_model}"
        why = f"makes heads of {width} in all, and an {called} normalises {wide}"
        found.append(Fault("model.head_dim", said(config.head_dim), why))
    if config.moe_layers and config.num_dense_layers:
        why = f"a {called} has experts in every layer; it can hold model.num_dense_layers=0"
        found.append(Fault("model.num_dense_layers", said(config.num_dense_layers), why))
    return found


def to_config_json(config: ModelConfig, dtype: str, end_of_text: int | None) -> dict[str, Any]:
    """The `config.json` of a model that its family can hold; `dtype` is torch's word for it."""
    assert not unholdable(config)
    family = family_of(config)
    numbers = {theirs: getattr(config, ours) for ours, theirs in family.keys.items()}
    if not family.has_experts:
        numbers["intermediate_size"] = config.dense_d_ff
    elif config.expert_balance == "none":
        numbers["router_aux_loss_coef"] = 0.0
    if family.shared_width:
        numbers[family.shared_width] = config.num_shared_experts * config.d_ff
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **numbers,
        # As transformers 4 calls it.
        **({"num_experts": config.num_experts} if family.has_experts and family is not MIXTRAL else {}),
        **family.says,
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
