"""Activation checkpointing, layer by layer.

The router's choice is kept in every mode: recomputed, a near tie could fall the other way and the backward would
belong to another forward. `selective` also keeps what the all-to-alls brought, so that nothing is sent twice.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

CHOICE = {torch.ops.aten.topk.default}
EXCHANGED = {torch.ops._c10d_functional.all_to_all_single.default, torch.ops._c10d_functional.all_reduce.default}
KEPT = {"full": CHOICE, "selective": CHOICE | EXCHANGED}


def keep(kept: set, ctx: object, op: Callable, *args: object, **kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in kept else CheckpointPolicy.PREFER_RECOMPUTE


def recompute_layers(layers: nn.ModuleDict, mode: str) -> None:
    """Wraps each layer's `forward`; the modules and their names stay. `none` leaves them alone."""
    if mode == "none":
        return
    context = partial(create_selective_checkpoint_contexts, partial(keep, KEPT[mode]))
    for layer in layers.values():
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, context_fn=context, preserve_rng_state=False
        )
