"""This rank's stages, and the schedule of `torch.distributed.pipelining` that runs them over a batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining.schedules import (
    FORWARD,
    RECV_F,
    RESHARD,
    SEND_F,
    UNSHARD,
    PipelineScheduleSingle,
    get_schedule_class,
)
from torch.distributed.tensor import DTensor

from project.compat.torch_internals import Action, ActionRuntime, Schedule, schedule_of_order, without_loss
from project.engine.instants import Instants
from project.engine.sharded_replicas import release
from project.engine.stage import RecordedStage, Span, Watch
from project.spec.layout import ParallelLayout
from project.spec.partition import stage_to_rank, stages_of
from project.spec.schedules.order import order_of
from project.spec.schedules.table import schedule_of


class Pipeline:
    """Runs batches of one shape, which its buffers have.

    `parts` are this rank's, in the order of their stages; `activation` is a meta tensor like one microbatch of what a
    stage sends the next; `loss` returns a microbatch's share of the loss from the last stage's outputs and the targets;
    `gradients` is their group of the gradients, by default that of `axis`;
    `compute_context`, `random_numbers` and the `watchers` are entered around each forward. `note` is told each action
    as it begins.
    """

    def __init__(
        self,
        layout: ParallelLayout,
        axis: DeviceMesh,
        device: torch.device,
        parts: Sequence[nn.Module],
        inputs: Tensor,
        activation: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        compute_context: Callable[[], AbstractContextManager],
        watchers: Sequence[Watch] = (),
        note: Callable[[str], None] = lambda action: None,
        random_numbers: Watch | None = None,
        instants: Instants | None = None,
        gradients: dist.ProcessGroup | None = None,
    ) -> None:
        if len(inputs) % layout.microbatches:
            raise ValueError(
                f"a replica's batch of {len(inputs)} does not divide into {layout.microbatches} microbatches"
            )
        self.input_shape = inputs.shape
        self.instants = instants or Instants(device)
        tokens = inputs[: len(inputs) // layout.microbatches].to("meta")
        here = stages_of(axis.get_local_rank(), layout)
        self.has_first = 0 in here
        self.axis, self.device = axis, device
        self.last_rank = dist.get_global_rank(axis.get_group(), stage_to_rank(layout)[-1])
        self.stages = [
            RecordedStage(
                part,
                index,
                layout.stages,
                device,
                axis.get_group(),
                inputs=tokens if index == 0 else activation,
                outputs=activation,
                compute_context=compute_context,
                # Either half would recompute the forward, and selective recomputation allows it once.
                split_backward=layout.recompute == "none",
                watchers=watchers,
                note=note,
                random_numbers=random_numbers,
                instants=self.instants,
                gradients=gradients,
            )
            for part, index in zip(parts, here, strict=True)
        ]
        self.loss = loss
        self.schedule = build_schedule(layout, self.stages, self.watched_loss)

    def watched_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        with self.stages[-1].watched():
            return self.loss(outputs, targets)

    def train(self, inputs: Tensor, targets: Tensor, **model_kwargs: Any) -> list[Tensor]:
        """Runs forward and backward of every microbatch. Returns their losses on the last stage's rank, else none."""
        losses: list[Tensor] = []
        self.prepare(inputs, model_kwargs)
        self.schedule.step(*self.arguments(inputs), target=targets, losses=losses, return_outputs=False)
        return losses

    def evaluate(self, inputs: Tensor, targets: Tensor, **model_kwargs: Any) -> list[Tensor]:
        """Runs the forwards alone; returns the losses as `train` does."""
        losses: list[Tensor] = []
        self.prepare(inputs, model_kwargs)
        with forward_only(self.schedule):
            self.schedule.eval(*self.arguments(inputs), target=targets, losses=losses, return_outputs=False)
        self.release()
        return losses

    def predict(self, inputs: Tensor, **model_kwargs: Any) -> Tensor:
        """Runs the forwards alone. Returns the last stage's outputs, whole, on every rank."""
        self.prepare(inputs, model_kwargs)
        with forward_only(self.schedule), without_loss(self.schedule):
            outputs = self.schedule.eval(*self.arguments(inputs), return_outputs=True)
        self.release()
        return self.shared(outputs.full_tensor() if isinstance(outputs, DTensor) else outputs)

    def shared(self, outputs: Tensor | None) -> Tensor:
        """Broadcasts the last stage's outputs, which the other stages have as None."""
        group = self.axis.get_group()
        like = [None if outputs is None else outputs.to("meta")]
        dist.broadcast_object_list(like, self.last_rank, group=group)
        assert like[0] is not None
        whole = torch.empty_like(like[0], device=self.device) if outputs is None else outputs.contiguous()
        dist.broadcast(whole, self.last_rank, group=group)
        return whole

    def prepare(self, inputs: Tensor, model_kwargs: dict[str, Any]) -> None:
        if inputs.shape != self.input_shape:
            raise ValueError(
                f"a batch of shape {list(inputs.shape)} after one of {list(self.input_shape)}: the pipeline's buffers "
                "have one shape; give training and validation the same, and drop an incomplete last batch"
            )
        for stage in self.stages:
            stage.model_kwargs, stage.spans = model_kwargs, []

    def arguments(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (inputs,) if self.has_first else ()

    def release(self) -> None:
        for stage in self.stages:
            release(stage.submod)

    def reduce_gradients(self) -> None:
        """Reduces the gradients of weights that are sharded over replicas; called once an optimizer step."""
        for stage in self.stages:
            stage.reduce_gradients()

    def take_spans(self) -> list[Span]:
        """Returns the last batch's actions in the order of their starts; none if they were taken already."""
        spans = self.instants.read([span for stage in self.stages for span in stage.spans])
        for stage in self.stages:
            stage.spans = []
        return sorted(spans, key=lambda span: span.start_ns)


NEEDED_TO_EVALUATE = (FORWARD, SEND_F, RECV_F, UNSHARD, RESHARD)


def build_schedule(
    layout: ParallelLayout, stages: Sequence[RecordedStage], loss: Callable[[Tensor, Tensor], Tensor] | None
) -> Schedule:
    """The schedule of this rank's stages: torch's own class, or torch's runtime with the order of the layout's record.

    Gradients are not scaled by the schedule: it would scale what earlier batches of an accumulation left as well.
    `loss` divides instead.
    """
    name = schedule_of(layout).torch_class
    if name is None:
        order = [[str(action) for action in actions] for actions in order_of(layout)]
        return schedule_of_order(order, stages, layout.microbatches, loss)
    schedule_class = get_schedule_class(name)
    single = issubclass(schedule_class, PipelineScheduleSingle)
    return schedule_class(stages[0] if single else list(stages), layout.microbatches, loss_fn=loss, scale_grads=False)


@contextmanager
def forward_only(schedule: Schedule) -> Iterator[None]:
    """torch's `eval` walks through a schedule's backward actions too, doing nothing, and trips over those that would
    pass a gradient between two stages of one rank. Here they are left out meanwhile."""
    if not isinstance(schedule, ActionRuntime):
        yield
        return
    order = schedule.pipeline_order_with_comms
    forwards = [action for action in leaves(order[schedule.rank]) if action.computation_type in NEEDED_TO_EVALUATE]
    schedule.pipeline_order_with_comms = {schedule.rank: forwards}
    try:
        yield
    finally:
        schedule.pipeline_order_with_comms = order


def leaves(actions: Sequence[Action]) -> Iterator[Action]:
    """The actions one by one: a forward and a backward that overlap are one action with two of its own."""
    for action in actions:
        yield from action.sub_actions or (action,)
