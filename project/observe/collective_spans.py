"""When collectives ran: from their launch until the rank had, or waited for, the result."""

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._distributed_c10d import Work
from torch._ops import HigherOrderOperator, OpOverload
from torch.distributed._functional_collectives import AsyncCollectiveTensor, _is_view_op
from torch.utils._pytree import tree_leaves

WAIT = torch.ops._c10d_functional.wait_tensor.default


class CollectiveSpan(NamedTuple):
    """Times as in `spans`. A send or a receive ends when it was posted: whoever waits for it waits outside."""

    axis: str
    collective: str
    direction: str
    bytes: int
    start_ns: int
    end_ns: int


class CollectiveSpans:
    """A functional collective ends when its result was waited for, which is before its first use; one of another kind
    when its work said that it was done; whichever says nothing, when its call returned."""

    def __init__(self) -> None:
        self.spans: list[CollectiveSpan] = []
        self.pending: dict[int, int] = {}

    def before(self, operation: OpOverload | HigherOrderOperator, types: Any, args: tuple, kwargs: dict) -> None:
        """What the operation is about to wait for by itself is waited for here, where it is seen."""
        if not self.pending or AsyncCollectiveTensor not in types or not isinstance(operation, OpOverload):
            return
        if not _is_view_op(operation):
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
        except RuntimeError:  # gloo's sends and receives have none
            return

    def waited(self, result: Tensor) -> None:
        place = self.pending.pop(key(result), None)
        if place is not None:
            self.end(place)

    def end(self, place: int) -> None:
        self.spans[place] = self.spans[place]._replace(end_ns=time.time_ns())


def key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
