"""Activation checkpointing, layer by layer.

The router's choice is kept in every mode: recomputed, a near tie could fall the other way and the backward would
belong to another forward. `selective` also keeps what the all-to-alls brought, so that nothing is sent twice. Random
numbers, as of dropout, are those of the forward: torch saves the state of its generators and restores it to recompute,
and `replay` that of others (`random_numbers.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from project.compat.torch_internals import ALL_REDUCE, ALL_TO_ALL, ignore_profiler_marks, results_beside_graph

CHOICE = {torch.ops.aten.topk.default}
EXCHANGED = {ALL_TO_ALL, ALL_REDUCE}
KEPT = {"full": CHOICE, "selective": CHOICE | EXCHANGED}

ignore_profiler_marks()


class Recomputed:
    """A layer's `forward` that keeps nothing for backward but its arguments and the results of operations in `kept`."""

    def __init__(self, forward: Callable, kept: set) -> None:
        self.forward, self.kept = forward, kept
        # One for each call whose backward is to come: they go with their graphs.
        self.caches: WeakSet[AbstractContextManager] = WeakSet()
        # Called with each forward, it returns what to enter around its recomputation.
        self.replay: Callable[[], Callable[[], AbstractContextManager]] = lambda: nullcontext

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(self.forward, *args, use_reentrant=False, context_fn=self.contexts, **kwargs)

    def contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        forward, recomputation = create_selective_checkpoint_contexts(self.policy)
        self.caches.add(recomputation)
        return forward, both(self.replay()(), recomputation)

    def policy(self, ctx: object, operation: Callable, *args: object, **kwargs: object) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operation in self.kept else CheckpointPolicy.PREFER_RECOMPUTE

    def results_kept(self) -> Iterator[Tensor]:
        """Yields the kept results of all calls, which torch holds beside autograd's graph."""
        for cache in self.caches:
            yield from results_beside_graph(cache)


@contextmanager
def both(first: AbstractContextManager, second: AbstractContextManager) -> Iterator[None]:
    with first, second:
        yield


def recompute_layers(layers: Iterable[nn.Module], mode: str) -> None:
    """Wraps each layer's `forward`; the modules and their names stay. `none` leaves them alone."""
    if mode != "none":
        for layer in layers:
            layer.forward = Recomputed(layer.forward, KEPT[mode])
