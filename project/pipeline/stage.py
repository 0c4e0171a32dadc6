"""A pipeline stage that computes in the run's precision and remembers when it did what."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage


class Span(NamedTuple):
    """One action of a stage: `F` forward, `B` backward (whole, or of the inputs alone), `W` backward of the weights.
    Times are `time.time_ns()`: one clock for all ranks of a machine. On a GPU they are when the work was queued."""

    stage: int
    action: str
    microbatch: int
    start_ns: int
    end_ns: int


class RecordedStage(PipelineStage):
    """`compute_context` is entered around the forward alone: autocast must not span the backward."""

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
    ) -> None:
        # Shapes given beforehand: torch would otherwise run the stage once on made-up activations to learn them.
        super().__init__(part, index, stages, device, input_args=inputs, output_args=outputs, group=group)
        self.compute_context = compute_context
        self.spans: list[Span] = []

    def forward_maybe_with_nosync(self, *args: Any, **kwargs: Any) -> Any:
        with self.compute_context():
            return super().forward_maybe_with_nosync(*args, **kwargs)

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        return self._timed("F", fwd_chunk_id, super().forward_one_chunk, fwd_chunk_id, *args, **kwargs)

    def backward_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        return self._timed("B", bwd_chunk_id, super().backward_one_chunk, bwd_chunk_id, *args, **kwargs)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        return self._timed("W", bwd_chunk_id, super().backward_weight_one_chunk, bwd_chunk_id, *args, **kwargs)

    def _timed(self, action: str, microbatch: int, call: Callable, *args: Any, **kwargs: Any) -> Any:
        start = time.time_ns()
        result = call(*args, **kwargs)
        self.spans.append(Span(self.stage_index, action, microbatch, start, time.time_ns()))
        return result
