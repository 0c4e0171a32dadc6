"""Tensors of other writers, told by their names and dtypes, and how to save them so that they can be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = ("F64", "F32", "F16", "BF16")
"""The dtypes of weights, by the names that safetensors gives them."""

# A pattern of names, what such a tensor is, and how to save the weights instead. The first that matches is told.
_WRITERS: tuple[tuple[str, str, str], ...] = (
    (
        r"\.lora_|lora_embedding|\.adapter|modules_to_save|\.base_layer\.|^base_model\.model\.",
        "is an adapter's (PEFT)",
        "save the merged model: model.merge_and_unload().save_pretrained(folder)",
    ),
    (
        r"weight_scale|scale_inv$|input_scale|activation_scale|\.qweight|\.qzeros|\.scales$|absmax|quant_state|\.SCB$"
        r"|weight_packed|weight_format|g_idx",
        "is of quantized weights",
        "save them dequantized, in bfloat16",
    ),
    (r"(^|\.)_orig_mod\.", "has the prefix of torch.compile", "save the model below: model._orig_mod"),
    (r"(^|\.)_fsdp_wrapped_module\.|_flat_param", "has the prefix of FSDP", "save the full state_dict of the model"),
    (r"(^|\.)_checkpoint_wrapped_module\.", "has the prefix of a checkpoint wrapper", "save the model without it"),
    (r"^(_forward_)?module\.", "has the prefix of a wrapper (DDP, DeepSpeed)", "save the model below: model.module"),
    (
        r"experts\.(gate_up_proj|down_proj)",
        "stacks the experts (gate_up_proj, down_proj), as transformers 5 does in memory",
        "write the files by model.save_pretrained(folder)",
    ),
    (
        r"^(layers\.\d|embed_tokens\.|norm\.)",
        "is of a model without a head",
        "save the one that has it (...ForCausalLM)",
    ),
    (
        r"^(model\.model\.|language_model\.|transformer\.|state_dict\.|model\.language_model\.)",
        "has the prefix of another model around it",
        "save the ...ForCausalLM in it, by its save_pretrained(folder)",
    ),
    (
        r"q_norm|k_norm|shared_expert|qkv_proj|\.mlp\.(gate|up|down)_proj|self_attn\..*bias",
        "is no part of the family that the config.json names",
        "the weights are another model's",
    ),
)


def general(name: str) -> str:
    """The name without the number of its layer, `{expert}` in place of its expert's."""
    return re.sub(r"\.experts\.\d+\.", ".experts.{expert}.", re.sub(r"^model\.layers\.\d+\.", "", name))


def told_apart(names: Iterable[str]) -> Iterator[str]:
    """One sentence for each kind of foreign name among a format's tensors."""
    names = sorted(names)
    taken: set[str] = set()
    for pattern, what, remedy in _WRITERS:
        matching = [name for name in names if name not in taken and re.search(pattern, name)]
        taken.update(matching)
        if matching:
            yield f"{matching[0]} {what}; {remedy}"


def told_dtype(name: str, dtype: str) -> str | None:
    """Says what is wrong with a weight of this dtype; None if nothing is."""
    if dtype in FLOATS:
        return None
    if dtype.startswith(("F8", "F6", "F4")):
        return f"{name} is {dtype}, floating-point of 8 bits or fewer, whose scales are not read; save it in bfloat16"
    return f"{name} is {dtype}, no floating-point numbers; save it in bfloat16 or float32"


def told_values(name: str, values: Tensor) -> str | None:
    """Says what is wrong with a weight's values; None if all are finite."""
    finite = values.isfinite()
    if finite.all():
        return None
    bad = values.numel() - int(finite.sum())
    return f"{name} has {bad} of {values.numel()} numbers that are not finite (NaN or infinity)"
