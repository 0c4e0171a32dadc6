"""Reads the `config.json` of one of transformers' models as a model of this project, or says which of its keys it
cannot hold.

A key that would change what the model computes is a fault, whether its family itself reads it or only a relative whose
configuration was renamed: such weights were not trained with what this model computes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from project.spec.fault import Fault, said
from project.spec.model import ModelConfig
from project.spec.record import hints, rejected, words_of
from project.state.weights.families import FAMILIES, OTHERWISE, WE_HOLD, Family

# The values that mean what this model computes, for keys of other models. Null always does.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "norm_topk_prob": (True,),
    "decoder_sparse_step": (1,),
    "moe_layer_freq": (1,),
    "scoring_func": ("softmax",),
    "topk_method": ("greedy",),
    "n_group": (1,),
    "topk_group": (1,),
    "position_embedding_type": ("rotary", "rope"),
    "hidden_activation": WE_HOLD["hidden_act"],
    "activation_function": WE_HOLD["hidden_act"],
    "norm_type": ("rmsnorm", "rms_norm"),
    "is_decoder": (True, False),
    "is_causal": (True,),
    "causal": (True,),
}
# What to do about a value that this model does not have, where something can be done.
_REMEDIES = {
    "tie_word_embeddings": "one matrix cannot be on the first and on the last stage of a pipeline; save the model with "
    "a head of its own: model.config.tie_word_embeddings = False; "
    "model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().clone()); "
    "model.save_pretrained(folder)",
}
# Words in the names of keys that change what a model computes, and of those whose neutral value is 1 and not 0.
_CHANGES = re.compile(
    r"scal|multiplier|factor|softcap|bias|shared|norm|rope|rotary|alibi|window|drop|noise|jitter|qk_|attn|attention"
    r"|layer_types|mlp_only|dense_replace|auto_map|adapter|lora|quant|compression|activation|hidden_act|cross|encoder"
    r"|group|clip|temperature|residual|sink|chunk|mtp|nextn|ntk|interleave|moe|pruned|per_layer"
    r"|(text|language|llm|decoder)_config"
)
_ONE_IS_NEUTRAL = re.compile(r"scal|multiplier|factor|temperature|rotary_pct|pretraining_tp")
_WITHOUT_EFFECT = re.compile(
    r"_?attn_implementation(_internal|_autoset)?|is_encoder_decoder|chunk_size_feed_forward|encoder_no_repeat_ngram_size"
    r"|num_beam_groups|temperature|num_attention_heads|rms_norm_eps|router_aux_loss_coef|rope_(theta|scaling|parameters)"
)
_SECTIONS = ("rope_parameters", "rope_scaling")


def config_json_faults(content: object) -> Iterator[Fault]:
    """The faults of a `config.json` whose model this project cannot compute; keys are its own."""
    kind = content.get("model_type") if isinstance(content, Mapping) else content
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if not isinstance(content, Mapping) or family is None:
        yield Fault("model_type", _short(kind), f"is none of what can be read: {', '.join(FAMILIES)}")
        return
    found = [
        *_number_faults(content, family),
        *_held_faults(content, family),
        *_said_faults(content, family),
        *_rope_faults(content),
    ]
    yield from found or _joint_faults(_numbers(content, family), family)


def _joint_faults(numbers: Mapping[str, Any], family: Family) -> Iterator[Fault]:
    """The faults of numbers that do not go together."""
    if family.has_experts:
        chosen, most = numbers["num_experts_per_tok"], numbers["num_local_experts"]
        if chosen > most:
            yield Fault("num_experts_per_tok", chosen, f"is more than num_local_experts={most}")
    if family.shared_width:
        all_shared, each = numbers[family.shared_width], numbers[family.keys["d_ff"]]
        if type(all_shared) is not int or all_shared < 1 or all_shared % each:
            why = f"must be a multiple of {family.keys['d_ff']}={each}"
            yield Fault(family.shared_width, _short(all_shared), why)
    if family.norms_heads_together:
        heads, each, width = (numbers[key] for key in ("num_attention_heads", "head_dim", "hidden_size"))
        if heads * each != width:
            why = f"x num_attention_heads={heads} is not hidden_size={width}, as wide as the norm of its queries"
            yield Fault("head_dim", each, why)


def from_config_json(content: Mapping[str, Any]) -> ModelConfig:
    """The model of a `config.json` without faults. Training options, which it does not have, are our defaults."""
    family = FAMILIES[content["model_type"]]
    numbers = _numbers(content, family)
    shared = {ours: numbers[theirs] for ours, theirs in family.keys.items()}
    dense = {} if family.has_experts else {"num_dense_layers": shared["num_layers"], "num_experts": 1, "top_k": 1}
    together = {"num_shared_experts": numbers[family.shared_width] // shared["d_ff"]} if family.shared_width else {}
    theta = float(_theta(content, family))
    return ModelConfig(**shared, **dense, **together, **family.ours, rope_theta=theta)


def _number_faults(content: Mapping[str, Any], family: Family) -> Iterator[Fault]:
    numbers = _numbers(content, family)
    values = {ours: numbers.get(theirs) for ours, theirs in family.keys.items()}
    for ours in rejected(ModelConfig, values):
        yield Fault(family.keys[ours], _short(values[ours]), f"must be {words_of(hints(ModelConfig)[ours])}")
    for other, key in OTHERWISE.items():
        if None not in (content.get(other), content.get(key)) and content[other] != content[key]:
            yield Fault(other, _short(content[other]), f"but {key}={_short(content[key])}")


def _held_faults(content: Mapping[str, Any], family: Family) -> Iterator[Fault]:
    """The faults of keys for which this model has one value, and of keys that it does not have."""
    for key, value in content.items():
        if not isinstance(key, str) or (value is None and key not in WE_HOLD):
            continue
        if key in family.says or key in family.keys.values() or key == family.shared_width:
            continue
        if key in family.without and content.get(family.without[key]) in (None, False):
            continue
        held = ([family.architecture],) if key == "architectures" else WE_HOLD.get(key, NEUTRAL.get(key))
        if held is not None:
            if not any(_same(value, one) for one in held):
                remedy = f"; {_REMEDIES[key]}" if key in _REMEDIES else ""
                yield Fault(key, _short(value), f"is nothing that this model has; {key}={said(held[0])} is{remedy}")
        elif _CHANGES.search(key) and not _WITHOUT_EFFECT.fullmatch(key) and not _is_neutral(key, value):
            yield Fault(key, _short(value), "would change what the model computes, and this model does not have it")


def _said_faults(content: Mapping[str, Any], family: Family) -> Iterator[Fault]:
    """The faults of what the family may say, and our model has one value of."""
    for key, held in family.says.items():
        value = content[key] if content.get(key) is not None else held
        if not _same(value, held):
            yield Fault(key, _short(value), f"is nothing that this model has; {key}={said(held)} is")


def _rope_faults(content: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of what is said of positions: by a section `rope_parameters` (transformers 5) or `rope_scaling`
    (transformers 4), whose kind is `rope_type` or `type`, and by `rope_theta` in it or outside of it. All must agree,
    because versions differ in which they read."""
    thetas = {"rope_theta": content["rope_theta"]} if content.get("rope_theta") is not None else {}
    for name in _SECTIONS:
        section = content.get(name)
        if section is not None and not isinstance(section, Mapping):
            yield Fault(name, _short(section), "must be an object, such as {rope_type: default, rope_theta: 10000.0}")
            continue
        for key, value in (section or {}).items():
            if key in ("rope_type", "type"):
                if value not in ("default", None):
                    yield Fault(f"{name}.{key}", _short(value), f"scales positions; {key}=default is what there is")
            elif key == "rope_theta":
                thetas[f"{name}.rope_theta"] = value
            elif not _is_neutral(f"rope_factor_{key}", value):
                yield Fault(f"{name}.{key}", _short(value), "changes positions; without it they are not scaled")
    for key, theta in thetas.items():
        if rejected(ModelConfig, {"rope_theta": theta}):
            yield Fault(key, _short(theta), "must be a number above 0")
        elif not _same(theta, first := next(iter(thetas.values()))):
            yield Fault(key, _short(theta), f"but {next(iter(thetas))}={_short(first)}; write the one that is meant")


def _theta(content: Mapping[str, Any], family: Family) -> Any:
    places = [content, *(content.get(name) or {} for name in _SECTIONS)]
    given = [place["rope_theta"] for place in places if place.get("rope_theta") is not None]
    return given[0] if given else family.theta


def _numbers(content: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The values of the family's keys, with its defaults for absent ones."""
    read = (*family.keys.values(), *([family.shared_width] if family.shared_width else []))
    given = {key: content[key] for key in read if content.get(key) is not None}
    others = {key: content[other] for other, key in OTHERWISE.items() if content.get(other) is not None}
    heads, width = given.get("num_attention_heads"), given.get("hidden_size")
    derived = {}
    if type(heads) is int and type(width) is int and heads > 0:
        derived = {"num_key_value_heads": heads, "head_dim": width // heads}
    return {**derived, **family.defaults, **others, **given}


def _is_neutral(key: str, value: object) -> bool:
    one = _same(value, 1) and _ONE_IS_NEUTRAL.search(key) is not None
    every_layer = isinstance(value, list) and all(entry == "full_attention" for entry in value)
    return one or value is None or value is False or _same(value, 0) or value in ("", {}) or every_layer


def _same(value: object, other: object) -> bool:
    """Equal, and both truth values or neither: JSON's `true` is no 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _short(value: object) -> str:
    words = said(value)
    return words if len(words) <= 80 else f"{words[:77]}..."
