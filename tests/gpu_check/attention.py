"""The attention kernels that CUDA alone has, by the CPU's. What they keep for their backward nobody else looks into."""

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

aten = torch.ops.aten
FORWARD = aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward


def named(func: OpOverload, args: tuple, kwargs: dict) -> dict[str, Any]:
    return dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs


def options(call: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    bias = {"attn_mask": call.get("attn_bias"), "scale": call.get("scale")}
    return (call.get("dropout_p", 0.0), call.get("is_causal", False)), bias


def forward(func: OpOverload) -> Callable:
    """Its results: the output, the sums of exponents, and what differs from kernel to kernel."""

    def kernel(*args: Any, **kwargs: Any) -> tuple:
        call = named(func, args, kwargs)
        how, which = options(call)
        result = FORWARD(call["query"], call["key"], call["value"], *how, **which)
        rest = [isinstance(returned.type, torch.TensorType) for returned in func._schema.returns[2:]]
        return *result, *(torch.zeros((), dtype=torch.int64) if tensor else call["key"].shape[2] for tensor in rest)

    return kernel


def backward(func: OpOverload) -> Callable:
    """Its results: the gradients of query, key and value, and none of a bias."""

    def kernel(*args: Any, **kwargs: Any) -> tuple:
        call = named(func, args, kwargs)
        how, which = options(call)
        grad = call["grad_out"] if "grad_out" in call else call["grad_out_"]
        kept = (call[name] for name in ("query", "key", "value", "out", "logsumexp"))
        return *BACKWARD(grad, *kept, *how, **which), *[None] * (len(func._schema.returns) - 3)

    return kernel


NAMES = [f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn")]
KERNELS = {
    **{getattr(aten, name): forward for name in NAMES},
    **{getattr(aten, f"{name}_backward"): backward for name in NAMES},
}
"""What makes the kernel of an operator."""
