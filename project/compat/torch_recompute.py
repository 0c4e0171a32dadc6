"""Selective activation checkpointing: the results that torch keeps beside the autograd graph."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import SAC_IGNORED_OPS, _CachedTorchDispatchMode, _VersionWrapper


def ignore_profiler_marks() -> None:
    """Lets selective checkpointing pass over the profiler's marks: those of FSDP's hooks differ between a forward and
    its recomputation, and are part of neither."""
    marks = torch.ops.profiler
    SAC_IGNORED_OPS.update({marks._record_function_enter_new.default, marks._record_function_exit._RecordFunction})


def results_beside_graph(recomputation: AbstractContextManager) -> Iterator[Tensor]:
    """Yields the results kept for a recomputation that is still to come. `recomputation` is the second of the two
    contexts of `create_selective_checkpoint_contexts`."""
    storage = cast(_CachedTorchDispatchMode, recomputation).storage
    for leaf in tree_leaves([result for calls in storage.values() for result in calls.values()]):
        if isinstance(leaf, _VersionWrapper):
            yield leaf.val
