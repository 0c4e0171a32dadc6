"""A pipeline stage that computes in the run's precision, and the record of when its actions and the phases around the
schedule ran.

Times are `time.time_ns()`. On a GPU they are when work was queued.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from project.compat.torch_internals import Stage
from project.engine.instants import Instants
from project.engine.series import applies_a_weight_twice_in_series

ACTIVATION, GRADIENT = 0, 1
"""Tags of the messages between stages, by their direction."""


class Span(NamedTuple):
    """One action of a stage, between two instants of `engine.instants`: `F` forward, `B` backward, or the two halves of
    one that is split, `I` of the inputs and `W` of the weights."""

    stage: int
    action: str
    microbatch: int
    start_ns: int
    end_ns: int


class Phase(NamedTuple):
    """A named stretch of time that is no action of a stage."""

    name: str
    start_ns: int
    end_ns: int


class Phases:
    """Collects the phases since they were last taken."""

    def __init__(self, instants: Instants) -> None:
        self.instants = instants
        self.noted: list[Phase] = []

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        if not self.instants.recording:
            yield
            return
        start = self.instants.now()
        try:
            yield
        finally:
            self.noted.append(Phase(name, start, self.instants.now()))

    def take(self) -> list[Phase]:
        taken, self.noted = self.noted, []
        return self.instants.read(taken)


class RecordedStage(Stage):
    """Enters `compute_context` around the forward alone: autocast must not span the backward. Every forward is given
    `model_kwargs` as they are, the same objects for each microbatch. Without `split_backward` a schedule that asks for
    the gradients of inputs and weights apart gets both at once; so does one of a part that applies a weight twice in
    series, which the first forward shows.

    `note` is told each action as it begins. `random_numbers` and each of the `watchers` are entered around every
    forward of the stage and, of the last stage, around the loss.
    """

    def __init__(
        self,
        part: nn.Module,
        index: int,
        stages: int,
        device: torch.device,
        group: dist.ProcessGroup,
        inputs: torch.Tensor,
        outputs: torch.Tensor,
        compute_context: Callable[[], AbstractContextManager],
        split_backward: bool,
        watchers: Sequence["Watch"] = (),
        note: Callable[[str], None] = lambda action: None,
        random_numbers: "Watch | None" = None,
        instants: Instants | None = None,
        gradients: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(
            part,
            index,
            stages,
            device,
            # Given beforehand: torch would otherwise run the stage once on made-up activations to learn their shapes.
            input_args=inputs,
            output_args=outputs,
            group=group,
            dw_builder=None if split_backward else nothing_left,
        )
        self.compute_context, self.split_backward = compute_context, split_backward
        self.watchers, self.note, self.random_numbers = watchers, note, random_numbers
        self.instants = instants or Instants(device)
        self.activations, self.gradients = group, gradients or group
        self.model_kwargs: dict[str, Any] = {}
        self.spans: list[Span] = []
        self.looked = False  # at the graph of a forward

    def forward_maybe_with_nosync(self, *args: Any, **kwargs: Any) -> Any:
        with self.watched(), self.compute_context():
            output = super().forward_maybe_with_nosync(*args, **self.model_kwargs)
        if self.split_backward and not self.looked and torch.is_grad_enabled():
            self.looked = True
            outputs = output if isinstance(output, tuple) else (output,)
            if not self.is_first and applies_a_weight_twice_in_series(args, outputs):
                self.split_backward, self.dw_builder = False, nothing_left
        return output

    @contextmanager
    def watched(self) -> Iterator[None]:
        with ExitStack() as stack:
            for watch in (*filter(None, [self.random_numbers]), *self.watchers):
                stack.enter_context(watch(self))
            yield

    # A message's tag tells its direction: to the ledger, and to gloo, which would else take one for the other.

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        return tagged(super().get_fwd_recv_ops(fwd_chunk_id), ACTIVATION, self.activations)

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        return tagged(super().get_fwd_send_ops(fwd_chunk_id), ACTIVATION, self.activations)

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        return tagged(super().get_bwd_recv_ops(bwd_chunk_id), GRADIENT, self.gradients)

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        return tagged(super().get_bwd_send_ops(bwd_chunk_id), GRADIENT, self.gradients)

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        return self._timed("F", fwd_chunk_id, super().forward_one_chunk, fwd_chunk_id, *args, **kwargs)

    def backward_one_chunk(self, bwd_chunk_id: int, *args: Any, full_backward: bool = True, **kwargs: Any) -> Any:
        kind = "I" if self.split_backward and not full_backward else "B"
        backward = super().backward_one_chunk
        return self._timed(kind, bwd_chunk_id, backward, bwd_chunk_id, *args, full_backward=full_backward, **kwargs)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        return self._timed("W", bwd_chunk_id, super().backward_weight_one_chunk, bwd_chunk_id, *args, **kwargs)

    def perform_reduce_grad(self, grad_scale_factor: int) -> None:
        """No-op: a schedule calls this once a batch, of which an optimizer step may accumulate several."""

    def reduce_gradients(self) -> None:
        super().perform_reduce_grad(1)

    def _timed(self, action: str, microbatch: int, call: Callable, *args: Any, **kwargs: Any) -> Any:
        self.note(f"action {self.stage_index}{action}{microbatch}")
        if not self.instants.recording:
            return call(*args, **kwargs)
        start = self.instants.now()
        result = call(*args, **kwargs)
        self.spans.append(Span(self.stage_index, action, microbatch, start, self.instants.now()))
        return result


Watch = Callable[[RecordedStage], AbstractContextManager]


def tagged(ops: list[dist.P2POp], tag: int, group: dist.ProcessGroup) -> list[dist.P2POp]:
    """Gives the messages a tag and a group, which has the ranks of their own in the same order."""
    for op in ops:
        op.tag, op.group = tag, group
    return ops


def nothing_left() -> Callable[[], None]:
    """Returns a no-op: the weight gradients were computed together with the input gradients."""
    return lambda: None
