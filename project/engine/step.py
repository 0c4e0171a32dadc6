"""One optimizer step of one rank, from batches to updated weights, in plain torch:

    for window in windows:  # the batches whose gradients one optimizer step accumulates
        step.accumulate = len(window)
        for number, batch in enumerate(window, 1):
            sums = step.train_batch(batch["tokens"], batch["targets"], last=number == len(window))
        step.update(optimizer, change=lambda: clip_to_norm(step.gradients(), step.grad_norm, 1.0))

1. `train_batch` runs a batch's microbatches through the pipeline, forward and backward.
2. With the last batch of a window it finishes the gradients: the sums over tensor-parallel ranks and replicas that are
   still due, and this rank's share of the squared norm.
3. One all-reduce over all ranks adds up what is summed once: squared norm, flags, loss, the model's statistics.
4. `update` clips, steps the optimizer if norm and loss are finite, adapts the fp16 loss scale, clears the gradients.

`HybridParallelStrategy` lets `trainer.fit` drive it.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor.parallel import loss_parallel
from torch.optim import Optimizer

from project.compat.torch_internals import scale_in_place
from project.engine.gradients import NotFinite, finish_sums, first_not_finite, local_gradients, squared_norm
from project.engine.instants import Instants
from project.engine.local_shards import local_shards
from project.engine.mean_loss import MeanLoss
from project.engine.mesh import Mesh
from project.engine.parts import named_weights
from project.engine.pipeline import Pipeline
from project.engine.precision import ComputePrecision, LossScale
from project.engine.random_numbers import RandomNumbers
from project.engine.split_model import SplitModel
from project.engine.stage import Phases, Span, Watch
from project.spec.layout import ParallelLayout
from project.spec.partition import stages_of


class Sums(NamedTuple):
    """One batch's sums over microbatches, stages and replicas, float64, on the host, the same on every rank: the mean
    loss over the targets that count, and their number, two scalars; and the model's statistics."""

    loss: Tensor
    counted: Tensor
    statistics: Tensor | None = None


@dataclass(eq=False, repr=False)
class Step:
    """The optimizer steps of one rank. `parts` are this rank's, from `build_parts`; `device` holds them."""

    model: SplitModel
    parts: Sequence[nn.Module]
    layout: ParallelLayout
    mesh: Mesh
    device: torch.device
    precision: ComputePrecision = field(default_factory=ComputePrecision)
    loss_scale: LossScale | None = None
    not_finite: Literal["stop", "skip"] = "stop"
    flags: Callable[[], Sequence[bool]] = tuple  # what this rank has to tell the others once a step
    note: Callable[[str], None] = lambda action: None  # is told each action as it begins, for a watchdog
    optimized: Callable[[], set[int]] | None = None  # the ids of the weights that an optimizer has; None: of all

    accumulate: int = field(default=1, init=False)  # batches in a window
    done: int = field(default=0, init=False)  # optimizer steps before the present one
    # The last window: the global 2-norm of its gradients, without loss scale, before clipping; its mean loss; for each
    # of the flags, whether any rank raised it (of the last evaluated batch, if that is later); whether norm and loss
    # are finite (if not, the optimizer did not step).
    grad_norm: float = field(default=math.nan, init=False)
    loss: float = field(default=math.nan, init=False)
    flagged: list[bool] = field(default_factory=list, init=False)
    finite: bool = field(default=False, init=False)
    correction: float = field(default=1.0, init=False)  # on the window's gradients, see `read`
    gradients_finished: bool = field(default=False, init=False)  # of the present window
    # Context managers entered around every stage's forward, as long as they are in the list.
    watchers: list[Watch] = field(default_factory=list, init=False)
    instants: Instants = field(init=False)
    # The last batch's `schedule` (with `loss` in it), `gradients`, `statistics` and `optimizer`.
    phases: Phases = field(init=False)
    pipeline: Pipeline | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.instants = Instants(self.device)
        self.phases = Phases(self.instants)
        self.mean_loss = MeanLoss(self.model, self.layout, self.mesh.dp)
        self.random_numbers = RandomNumbers(self.parts, self.mesh, self.device)

    # -- the step, in order -------------------------------------------------------------------------------------------

    def train_batch(
        self,
        inputs: Tensor,
        targets: Tensor,
        statistics: Callable[[], Tensor] | None = None,
        *,
        last: bool = True,
        **model_kwargs: Any,
    ) -> Sums:
        """Forward and backward of this replica's batch. `statistics`, called after the schedule, returns this stage's
        summand of a tensor; `last` says that `update` follows.

        Raises:
            RuntimeError: for a batch after the last one of a window: the window's gradients are summed already.
        """
        if self.gradients_finished:
            raise RuntimeError("a batch after the last one of an optimizer step, whose gradients are summed already")
        self.phases.noted.clear()
        self.random_numbers.begin("train", self.done, len(self.mean_loss.losses))
        # 1. Microbatches through the pipeline, forward and backward.
        with self.computing(), self.phases.during("schedule"):
            losses = self.pipeline_for(inputs).train(inputs, targets, **model_kwargs)
        of_stage = list(self.mean_loss.of_stage(losses, targets, self.loss_factor))
        if statistics is not None:
            of_stage.append(statistics())
        # 2. The sums of gradients that are still due, once a window.
        of_rank = self.finish_gradients() if last else []
        # 3. One all-reduce over all ranks.
        with self.phases.during("statistics"):
            sums = self.sum_over_ranks(of_rank, of_stage)
        batch = self.over_count(targets, *sums[len(of_rank) :])
        self.mean_loss.add(targets, batch.loss, batch.counted)
        if last:
            self.read(*sums[:2])
        return batch

    def update(self, optimizer: Optimizer, change: Callable[[], None] = lambda: None, **kwargs: Any) -> None:
        """Ends the window. `change` may clip or change the gradients, which are those of the mean loss over the
        targets that count in the whole window, without loss scale.

        Raises:
            NotFinite: on all ranks, for a norm or loss that is not, unless such steps are skipped. Under fp16 a norm
                alone is no error: the next steps' loss scale is lower.
        """
        if not self.gradients_finished:
            self.take_norm()
        self.mean_loss.next_step()
        self.gradients_finished = False
        self.finite = math.isfinite(self.grad_norm) and math.isfinite(self.loss)
        # 4. The update.
        with self.phases.during("gradients"):
            if not self.finite and (self.loss_scale is None or not math.isfinite(self.loss)):
                self.refuse(self.loss)
            if self.correction != 1.0 and (gradients := self.gradients()):
                scale_in_place(gradients, self.correction)
            change()
        with self.phases.during("optimizer"):
            if self.finite:
                optimizer.step(**kwargs)
            if self.loss_scale:
                self.loss_scale.update(self.finite)
            optimizer.zero_grad()
            self.clear_gradients()  # also those of weights that the optimizer has not
        self.done += 1

    def clear(self) -> None:
        """Forgets a window without an update."""
        self.mean_loss.next_step()
        self.gradients_finished = False
        self.clear_gradients()

    # -- without gradients --------------------------------------------------------------------------------------------

    def evaluate_batch(self, inputs: Tensor, targets: Tensor, **model_kwargs: Any) -> Sums:
        """Forward alone; returns the mean loss and the count, as `train_batch` does."""
        self.phases.noted.clear()
        self.random_numbers.begin("evaluate", self.done)
        with self.computing():
            losses = self.pipeline_for(inputs).evaluate(inputs, targets, **model_kwargs)
        of_stage = self.mean_loss.of_stage(losses, targets, self.loss_factor)
        flags, *sums = self.sum_over_ranks([self.raised_here()], of_stage)
        self.flagged = [raised > 0 for raised in flags.tolist()]
        return self.over_count(targets, *sums)

    def predict_batch(self, inputs: Tensor, **model_kwargs: Any) -> Tensor:
        """Returns the model's outputs for one batch, whole, on every rank of a replica."""
        self.random_numbers.begin("predict", self.done)
        with self.computing():
            return self.pipeline_for(inputs).predict(inputs, **model_kwargs)

    # -- 1. microbatches through the pipeline -------------------------------------------------------------------------

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Modules compute on local shards, and the loss on logits whose vocabulary is divided."""
        with local_shards(self.parts, self.precision.products_dtype), loss_parallel():
            yield

    def pipeline_for(self, inputs: Tensor) -> Pipeline:
        """Returns the pipeline, built for the shape of the first batch."""
        if self.pipeline is None:
            microbatch = torch.Size((len(inputs) // self.layout.microbatches, *inputs.shape[1:]))
            shape = self.model.activation_shape(microbatch, self.layout)
            self.check_divides(inputs, self.model.activation_shape(microbatch, replace(self.layout, tp=1)), shape)
            self.pipeline = Pipeline(
                self.layout,
                self.mesh.pp,
                self.device,
                self.parts,
                inputs,
                torch.empty(shape, dtype=self.precision.weight_dtype, device="meta", requires_grad=True),
                self.microbatch_loss,
                lambda: self.precision.compute_context(self.device),
                self.watchers,
                self.note,
                self.random_numbers.of_forward,
                self.instants,
                self.mesh.gradients,
            )
        return self.pipeline

    def check_divides(self, inputs: Tensor, whole: Sequence[int], here: Sequence[int]) -> None:
        """Checks the shape of a rank's activation against that without tensor parallelism: ranks whose shares are
        not alike would wait for bytes that the others do not send.

        Raises:
            ValueError: if tp does not divide a dim that it cuts.
        """
        for dim, (size, share) in enumerate(zip(whole, here, strict=True)):
            if share not in (size, size / self.layout.tp):
                raise ValueError(
                    f"inputs of shape {list(inputs.shape)}: parallel.tp={self.layout.tp} does not divide dim {dim} of "
                    f"the activation, {size}; nearest {size - size % self.layout.tp or self.layout.tp}"
                )

    def take_spans(self) -> list[Span]:
        """Returns the last batch's actions on this rank; none if they were taken already."""
        return [] if self.pipeline is None else self.pipeline.take_spans()

    @property
    def scale(self) -> float:
        return self.loss_scale.scale if self.loss_scale else 1.0

    @property
    def loss_factor(self) -> float:
        """The factor on a microbatch's mean loss that makes gradients add up to those of the mean over the replicas,
        their microbatches and the batches of a window; times the fp16 loss scale. Where targets do not count, a
        microbatch weighs less, and `update` corrects the whole (`mean_loss.py`)."""
        return self.scale / (self.layout.dp * self.layout.microbatches * self.accumulate)

    def microbatch_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        with self.phases.during("loss"), self.precision.compute_context(self.device):
            return self.mean_loss.of_microbatch(outputs, targets, self.loss_factor)

    def penalty_scale(self, targets: Tensor) -> Tensor:
        """See `MeanLoss.penalty_scale`."""
        return self.mean_loss.penalty_scale(targets, self.loss_factor)

    def over_count(self, targets: Tensor, loss: Tensor, count: Tensor, statistics: Tensor | None = None) -> Sums:
        return Sums(self.mean_loss.over_count(targets, loss, count), count, statistics)

    # -- 2. gradients -------------------------------------------------------------------------------------------------

    def weights(self) -> Iterator[nn.Parameter]:
        return (weight for _, weight in named_weights(self.parts))

    def optimized_weights(self) -> Iterator[nn.Parameter]:
        """Returns the weights whose gradients the norm is of."""
        ids = self.optimized() if self.optimized else None
        return (weight for weight in self.weights() if ids is None or id(weight) in ids)

    def clear_gradients(self) -> None:
        for weight in self.weights():
            weight.grad = None

    def gradients(self) -> list[Tensor]:
        """This rank's shards of the gradients."""
        return local_gradients(self.weights())

    def finish_gradients(self) -> list[Tensor]:
        """Completes the window's gradients, once. Returns this rank's summand of the squared norm, and its flags."""
        with self.phases.during("gradients"):
            if not self.gradients_finished:
                self.note("the sums of gradients")
                if self.pipeline is not None:
                    self.pipeline.reduce_gradients()
                finish_sums(self.weights(), self.mesh)
                self.gradients_finished = True
            return [squared_norm(self.optimized_weights(), self.mesh, self.device), self.raised_here()]

    def raised_here(self) -> Tensor:
        """This rank's flags, 0 or 1 each."""
        return torch.tensor([float(flag) for flag in self.flags()], dtype=torch.float64, device=self.device)

    # -- 3. what is summed once ---------------------------------------------------------------------------------------

    def sum_over_ranks(self, of_rank: Sequence[Tensor], of_stage: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor's sum over all ranks, in float64 and on the host, by one all-reduce and one copy: the only time
        in a batch that the host waits for its device. The tensor-parallel ranks of a stage have the same `of_stage`, of
        which the first one's counts: zeros from the others change no bit."""
        if self.mesh.tp.get_local_rank() != 0:
            of_stage = [torch.zeros_like(tensor) for tensor in of_stage]
        tensors = [*of_rank, *of_stage]
        flat = torch.cat([tensor.double().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = flat.cpu().split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def read(self, square: Tensor, flags: Tensor) -> None:
        """Takes norm and loss of the window from its sums. Gradients were divided by all places and multiplied by the
        fp16 scale; `correction` takes both back."""
        of_loss = [self.mean_loss.counted(), self.mean_loss.so_far()]
        scalars = torch.stack([square, *(tensor.to(square) for tensor in of_loss)])
        total, targets, self.loss, *raised = torch.cat((scalars, flags)).tolist()
        self.correction = self.mean_loss.correction(targets) / self.scale
        self.grad_norm, self.flagged = math.sqrt(total) * self.correction, [raised > 0 for raised in raised]

    def take_norm(self) -> None:
        """Takes the norm by an all-reduce of its own: for gradients that were changed since the last batch, or where no
        batch was said to be the last. Collective."""
        of_rank = self.finish_gradients()
        with self.phases.during("statistics"):
            self.read(*self.sum_over_ranks(of_rank, []))

    def take_norm_again(self) -> None:
        """Takes the norm of gradients that were changed after their correction. Collective."""
        with self.phases.during("statistics"):
            (square,) = self.sum_over_ranks([squared_norm(self.optimized_weights(), self.mesh, self.device)], [])
        self.grad_norm = math.sqrt(square.item())

    # -- 4. an update that is refused ---------------------------------------------------------------------------------

    def refuse(self, loss: float) -> None:
        """Says on which rank the first weight or gradient stands that is not finite; collective."""
        stages = stages_of(self.mesh.pp.get_local_rank(), self.layout)
        first = first_not_finite(zip(stages, self.parts, strict=True)) or "the loss itself, on the last stage"
        said = f"step {self.done + 1}: loss {loss}, gradient norm {self.grad_norm}; first not finite is {first}"
        if self.not_finite == "stop":
            raise NotFinite(f"{said}; nothing was updated: lower the learning rate and resume from a checkpoint")
        if dist.get_rank() == 0:
            warnings.warn(f"{said}; the step is skipped", stacklevel=2)
