"""The ledger: the numbers of collectives and messages that a rank takes part in and of the bytes that it sends, by
axis, collective and direction. `message` has the formulas for bytes.

Directions:
    forward     during a stage's forward or the loss; activations sent between stages
    backward    while autograd runs, recomputation included; gradients sent between stages
    step        outside of both: synchronisation and norm of gradients, sums of logged values

A group of one rank sends nothing and is not counted.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import Work
from torch.distributed.tensor import DTensor

from project.compat.torch_internals import (
    WAIT,
    AsyncCollectiveTensor,
    HigherOrderOperator,
    OpOverload,
    TorchDispatchMode,
    in_backward,
    is_view,
    storage_id,
    tree_leaves,
)
from project.engine.instants import Instants
from project.engine.stage import GRADIENT
from project.observe.message import Message, kind_of, message

DIRECTIONS = ("forward", "backward", "step")


class Line(NamedTuple):
    """A row of the ledger."""

    axis: str
    collective: str
    direction: str


class Ledger(TorchDispatchMode):
    """Counts collectives while it is entered; it may be entered several times. `axes` maps the names of process groups
    to axes; another group is named by its ranks. `collectives` has the time of each.

    It changes no bit of the results. It intercepts every operation, which costs most if they are small: forward and
    backward of `model=tiny` on one rank take 1.4 times the CPU time (1.39 and 1.41 in two runs on a loaded machine,
    one thread, 2026-11-23).
    """

    def __init__(self, axes: Mapping[str, str], instants: Instants | None = None) -> None:
        super().__init__()
        self.instants = instants or Instants()
        self.axes = dict(axes)
        self.calls: dict[Line, int] = defaultdict(int)
        self.bytes: dict[Line, int] = defaultdict(int)
        self.computing = False
        self.collectives = CollectiveSpans(self.instants)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        # The collectives of a DTensor's operation are dispatched here one by one. Calls inside a functional collective
        # are not, because a mode is inactive while it handles a call.
        if DTensor in types:
            return NotImplemented
        kwargs = kwargs or {}
        self.collectives.before(func, types, args, kwargs)
        if kind_of(func) is None:
            result = func(*args, **kwargs)
            if func is WAIT:
                self.collectives.waited(args[0])
            return result
        sent = message(func, args, kwargs)
        start = self.instants.now() if self.instants.recording else None
        result = func(*args, **kwargs)
        if sent.group.size() > 1:
            line = self.note(sent)
            if start is not None:
                span = CollectiveSpan(*line, sent.bytes, start, self.instants.now())
                self.collectives.launched(span, result)
        return result

    def note(self, sent: Message) -> Line:
        line = Line(self.axis_of(sent.group), sent.kind, self.direction_of(sent))
        self.calls[line] += 1
        self.bytes[line] += sent.bytes
        return line

    def axis_of(self, group: ProcessGroup) -> str:
        if group.group_name not in self.axes:
            ranks = sorted(dist.get_process_group_ranks(group))
            self.axes[group.group_name] = f"ranks {','.join(map(str, ranks))}"
        return self.axes[group.group_name]

    def direction_of(self, sent: Message) -> str:
        if sent.kind in ("send", "recv"):
            return "backward" if sent.tag == GRADIENT else "forward"
        if in_backward():
            return "backward"
        return "forward" if self.computing else "step"

    @contextmanager
    def forward(self, stage: object = None) -> Iterator[None]:
        """Marks forward computation, which runs in this context."""
        self.computing = True
        try:
            yield
        finally:
            self.computing = False

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes.values())

    def table(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The counts as `{axis: {collective: {calls, bytes, direction: {calls, bytes}}}}`; directions without a call
        are left out."""
        table: dict[str, dict[str, dict[str, Any]]] = {}
        for line in sorted(self.calls, key=lambda line: (line.axis, line.collective, DIRECTIONS.index(line.direction))):
            both = {"calls": self.calls[line], "bytes": self.bytes[line]}
            entry = table.setdefault(line.axis, {}).setdefault(line.collective, {"calls": 0, "bytes": 0})
            entry |= {name: entry[name] + count for name, count in both.items()} | {line.direction: both}
        return table


class CollectiveSpan(NamedTuple):
    """A collective or message, between two instants of `engine.instants`. A send or receive ends when it
    is posted, because waiting for it is not a collective."""

    axis: str
    collective: str
    direction: str
    bytes: int
    start_ns: int
    end_ns: int


class CollectiveSpans:
    """Records collectives. A functional collective ends when its result is waited for, which is before its first use;
    another one when its work reports that it is done, or, if it never does, when the call returns."""

    def __init__(self, instants: Instants) -> None:
        self.instants = instants
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

    def follow(self, work: Work | None, place: int) -> None:
        """Ends the span when its work is done. A synchronous collective of NCCL's, and messages sent as one, have no
        work, and gloo's sends and receives have work without a future."""
        if work is None:
            return
        try:
            work.get_future().add_done_callback(lambda _: self.end(place))
        except (RuntimeError, NotImplementedError):
            return

    def waited(self, result: Tensor) -> None:
        place = self.pending.pop(key(result), None)
        if place is not None:
            self.end(place)

    def end(self, place: int) -> None:
        self.spans[place] = self.spans[place]._replace(end_ns=self.instants.now())


def key(tensor: Tensor) -> int:
    return storage_id(tensor.untyped_storage())
