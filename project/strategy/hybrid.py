"""Tensor x expert x pipeline parallel training under plain `trainer.fit`."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import lightning.pytorch as L
import torch
import torch.distributed as dist
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import loss_parallel

from project.compat.lightning_strategy import replace_signal_handlers
from project.compat.torch_tensors import scale_in_place
from project.engine.finite import NotFinite, first_not_finite
from project.engine.gradients import finish_sums, global_norm, local_gradients
from project.engine.materialize import local_tensor
from project.engine.parts import build_parts
from project.engine.pipeline import Pipeline
from project.engine.spans import Phases, Span
from project.engine.stage import Watch
from project.spec.layout import ParallelLayout
from project.spec.placement import stages_of
from project.strategy.checkpoint import CheckpointedStrategy
from project.strategy.module import HybridModule
from project.strategy.precision import HybridPrecision
from project.strategy.stop import listen_while_fitting, requeue_this_job


class HybridParallelStrategy(CheckpointedStrategy):
    """Give it a layout and a `HybridModule`; one rank takes the same road as sixteen.

    `precision` is for what Lightning refuses to any model-parallel strategy, 16-mixed and 64-true; whatever else may as
    well be the Trainer's.

    Attributes:
        grad_norm: the global gradient norm of the last optimizer step, before clipping; the same on all ranks.
        took_step: whether that step was taken: one whose gradient or loss is not finite is not.
        watchers: of every stage's forward computation, as long as they are in the list.
        phases: of the last batch, what went on around its actions: `schedule`, in it `loss`; `statistics`, summed over
            ranks; `gradients`, their synchronisation, norm and clipping; `optimizer`.
    """

    def __init__(
        self,
        layout: ParallelLayout,
        precision: str | None = None,
        timeout: timedelta = timedelta(minutes=5),
        asynchronous_checkpoints: bool = True,
        run_config: Mapping[str, Any] | None = None,
        not_finite: Literal["stop", "skip"] = "stop",
    ) -> None:
        self._precision = precision
        super().__init__(layout, timeout, asynchronous_checkpoints, run_config or {})
        self.grad_norm, self.took_step = float("nan"), False
        self.losses_of_step: list[Tensor] = []
        self.not_finite = not_finite
        self.watchers: list[Watch] = []
        self.phases = Phases()
        self._pipeline: Pipeline | None = None

    def connect(self, model: L.LightningModule) -> None:
        if not isinstance(model, HybridModule):
            raise TypeError(f"HybridParallelStrategy trains a HybridModule, which {type(model).__name__} is not")
        super().connect(model)

    def teardown(self) -> None:
        super().teardown()
        self._pipeline = None

    # -- precision ------------------------------------------------------------------------------------------------

    @property
    def precision_plugin(self) -> HybridPrecision:
        if self._precision_plugin is None:
            self._precision_plugin = HybridPrecision(self._precision or "32-true", self)
        assert isinstance(self._precision_plugin, HybridPrecision)
        return self._precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, precision_plugin: Precision | None) -> None:
        """Whatever the Trainer chose, in the form that knows of schedules. Nothing yet is left at nothing: a plugin
        that the strategy has before the Trainer asks would beat the Trainer's precision without a word."""
        if precision_plugin is None:
            self._precision_plugin = None
            return
        chosen = str(precision_plugin.precision)
        if self._precision and chosen not in ("32-true", self._precision):
            raise ValueError(f"the strategy's precision is {self._precision}, the Trainer's {chosen}: give one of them")
        self._precision_plugin = HybridPrecision(self._precision or chosen, self)

    # -- model ----------------------------------------------------------------------------------------------------

    def build_parts(self, module: HybridModule) -> list[nn.Module]:
        return build_parts(module, self.layout, self.mesh, self.root_device, self.precision_plugin.weight_dtype)

    def setup(self, trainer: L.Trainer) -> None:
        listen = partial(listen_while_fitting, trainer, self.stop, self.cluster_environment)
        replace_signal_handlers(trainer, listen)
        super().setup(trainer)
        self.barrier()

    def parameters_here(self) -> int:
        return sum(local_tensor(parameter).numel() for _, parameter in self.hybrid_module.named_weights())

    # -- a batch --------------------------------------------------------------------------------------------------

    def run_batch(self, inputs: Tensor, targets: Tensor, *, train: bool, **model_kwargs: Any) -> Tensor:
        """Runs the schedule over one batch, all microbatches, forward and (in training) backward.

        Returns the mean loss over the microbatches and the replicas, the same on every rank."""
        self.phases.take()
        pipeline = self._pipeline_for(inputs)
        with loss_parallel(), self.phases.during("schedule"):
            losses = (pipeline.train if train else pipeline.evaluate)(inputs, targets, **model_kwargs)
        loss = torch.zeros((), device=self.root_device, dtype=torch.float64)
        if losses:
            replica_loss = torch.stack(losses).detach().double().sum() / (self.loss_factor * self.layout.microbatches)
            loss += replica_loss / self.layout.dp
        mean = self.sum_over_replicas_and_stages(loss)
        if train:
            self.losses_of_step.append(mean)
        return mean

    def predict_batch(self, inputs: Tensor, **model_kwargs: Any) -> Tensor:
        """The model's outputs for one batch, whole, on every rank of a replica."""
        return self._pipeline_for(inputs).predict(inputs, **model_kwargs)

    def sum_over_replicas_and_stages(self, tensor: Tensor) -> Tensor:
        """What each stage of each replica knows of a tensor, zero where it knows nothing, put together on all."""
        ranks = self.mesh.replicas_and_stages
        if ranks.size() > 1:
            with self.phases.during("statistics"):
                dist.all_reduce(tensor, group=ranks.get_group())
        return tensor

    @property
    def loss_factor(self) -> float:
        """On a microbatch's mean loss, so that gradients add up to those of the mean over the replicas, their
        microbatches and the accumulated batches of an optimizer step (of an epoch's last, incomplete one too:
        Lightning's own rule); times the fp16 loss scale."""
        assert self.lightning_module is not None
        accumulated = self.lightning_module.trainer.accumulate_grad_batches
        return self.precision_plugin.scale / (self.layout.dp * self.layout.microbatches * accumulated)

    def _microbatch_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        with self.phases.during("loss"), self.precision_plugin.compute_context():
            loss = self.hybrid_module.loss(outputs, targets)
        return (loss.full_tensor() if isinstance(loss, DTensor) else loss) * self.loss_factor

    def _pipeline_for(self, inputs: Tensor) -> Pipeline:
        if self._pipeline is None:
            microbatch = torch.Size((len(inputs) // self.layout.microbatches, *inputs.shape[1:]))
            shape = self.hybrid_module.activation_shape(microbatch, self.layout)
            dtype = self.precision_plugin.weight_dtype
            self._pipeline = Pipeline(
                self.layout,
                self.mesh.pp,
                self.root_device,
                list(self.hybrid_module.parts),
                inputs,
                torch.empty(shape, dtype=dtype, device="meta", requires_grad=True),
                self._microbatch_loss,
                self.precision_plugin.compute_context,
                self.watchers,
                self.note,
            )
        return self._pipeline

    def take_spans(self) -> list[Span]:
        """What this rank's stages did in the last batch; none if that was asked already."""
        return [] if self._pipeline is None else self._pipeline.take_spans()

    # -- a step ---------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Raises:
        SIGTERMException: on all ranks after the batch in which one was told to stop; the checkpoint is whole.
        """
        super().on_train_batch_start(batch, batch_idx)
        if self.stop.agreed:
            self.writer.drain()
            if self.is_global_zero:
                requeue_this_job(self.cluster_environment, self.stop.signal)
            raise SIGTERMException

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The schedule has run it; what is left are the hooks around it."""
        assert self.lightning_module is not None
        closure_loss = self.precision_plugin.pre_backward(closure_loss, self.lightning_module)
        return self.precision_plugin.post_backward(closure_loss, self.lightning_module)

    def weights(self) -> Iterable[nn.Parameter]:
        return (parameter for _, parameter in self.hybrid_module.named_weights())

    def finish_gradients(self) -> None:
        """Once an optimizer step, before hooks, clipping and update see the gradients."""
        self.note("the sums of gradients")
        if self._pipeline is not None:
            self._pipeline.reduce_gradients()
        finish_sums(self.weights(), self.mesh)
        if self.precision_plugin.scale != 1.0:
            scale_in_place(local_gradients(self.weights()), 1.0 / self.precision_plugin.scale)
        calls = self.stop.signal is not None or self.writer.failed
        self.grad_norm, called = global_norm(self.weights(), self.mesh, self.root_device, calls)
        losses, self.losses_of_step = self.losses_of_step, []
        if called:
            self.answer()
        loss = sum(loss.item() for loss in losses) / max(1, len(losses))
        self.took_step = math.isfinite(self.grad_norm) and math.isfinite(loss)
        if not self.took_step:
            self.judge(loss)

    def answer(self) -> None:
        """A rank has been told to stop, or could not write: now all ranks know.

        Raises:
            CheckpointError: on all ranks.
        """
        signals = self.gathered((self.stop.signal, self.writer.failed))
        if any(failed for _, failed in signals):
            self.writer.drain()
        self.stop.signal = next((number for number, _ in signals if number is not None), None)
        self.stop.agreed = self.stop.signal is not None

    def judge(self, loss: float) -> None:
        """A gradient or a loss that is not finite: under fp16 a gradient may overflow, at a scale that will be lowered.

        Raises:
            NotFinite: on all ranks, unless such steps are skipped, when the checkpoint underway is whole.
        """
        if self.precision_plugin.loss_scale is not None and math.isfinite(loss):
            return
        place = first_not_finite(self.weights_by_stage())
        step = self.hybrid_module.trainer.global_step + 1
        first = place or "the loss itself, on the last stage"
        said = f"step {step}: loss {loss}, gradient norm {self.grad_norm}; first not finite is {first}"
        if self.not_finite == "skip":
            rank_zero_warn(f"{said}; the step is skipped")
            return
        self.writer.drain()
        raise NotFinite(f"{said}; nothing was updated: lower the learning rate and resume from a checkpoint")

    def weights_by_stage(self) -> Iterable[tuple[int, str, Tensor]]:
        stages = stages_of(self.mesh.pp.get_local_rank(), self.layout)
        for stage, part in zip(stages, self.hybrid_module.parts, strict=True):
            for name, weight in part.named_parameters():
                yield stage, name, weight
