"""The times of collectives, from the launch until the result was there or was waited for."""

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import Work

from project.compat.torch_collectives import AsyncCollectiveTensor
from project.compat.torch_dispatch import HigherOrderOperator, OpOverload, is_view
from project.compat.torch_tensors import storage_id, tree_leaves


class CollectiveSpan(NamedTuple):
    """A collective or message, with times as in `engine.spans`. A send or receive ends when it is posted, because
    waiting for it is not a collective."""

    axis: str
    collective: str
    direction: str
    bytes: int
    start_ns: int
    end_ns: int


class CollectiveSpans:
    """Records collectives. A functional collective ends when its result is waited for, which is before its first use;
    another one when its work reports that it is done, or, if it never does, when the call returns."""

    def __init__(self) -> None:
        self.spans: list[CollectiveSpan] = []
        self.pending: dict[int, int] = {}

    def before(self, operation: OpOverload | HigherOrderOperator, types: Any, args: tuple, kwargs: dict) -> None:
        """Waits for the results that the operation would wait for inside, where the ledger does not see it."""
        if not self.pending or AsyncCollectiveTensor not in types or not isinstance(operation, OpOverload):
            return
        if not is_view(operation):
            for argument in tree_leaves((args, kwargs)):
                if isinstance(argument, AsyncCollectiveTensor):
                    argument.trigger_wait()
                    self.waited(argument.elem)

    def launched(self, span: CollectiveSpan, result: Any) -> None:
        place = len(self.spans)
        self.spans.append(span)
        for part in tree_leaves(result):
            if isinstance(part, torch.ScriptObject):
                self.follow(Work.unbox(part), place)
            elif isinstance(part, Tensor):
                self.pending[key(part)] = place

    def follow(self, work: Work, place: int) -> None:
        try:
            work.get_future().add_done_callback(lambda _: self.end(place))
        except RuntimeError:  # gloo's sends and receives have no future
            return

    def waited(self, result: Tensor) -> None:
        place = self.pending.pop(key(result), None)
        if place is not None:
            self.end(place)

    def end(self, place: int) -> None:
        self.spans[place] = self.spans[place]._replace(end_ns=time.time_ns())


def key(tensor: Tensor) -> int:
    return storage_id(tensor.untyped_storage())
