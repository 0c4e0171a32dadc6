"""Tensor x expert x pipeline parallel training under plain `trainer.fit`.

The strategy adapts `project.engine.step` to Lightning's loop and holds the parts that a run needs besides: its ranks
(`strategy.ranks`, `strategy.launcher`), checkpoints (`strategy.checkpoint`), precision and stopping.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import lightning.pytorch as L
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from project.compat.lightning_internals import LaunchedStrategy, before_optimizer_step, replace_signal_handlers
from project.engine.clock import Clock
from project.engine.gradients import NotFinite
from project.engine.mesh import Mesh, gathered
from project.engine.parts import build_parts, local_tensor, named_weights
from project.engine.split_model import SplitModel
from project.engine.step import Step, Sums
from project.observe.record import RunRecord
from project.spec.layout import ParallelLayout
from project.state.checkpoint.agreement import each_for_itself, nothing
from project.state.checkpoint.last import put_link
from project.state.checkpoint.partial import remove_checkpoint
from project.state.run_state import NamedOptimizer, weights
from project.strategy.checkpoint import RunCheckpoints
from project.strategy.last_action import TIMED_OUT, PostedActions
from project.strategy.launcher import ForkLauncher, one_line
from project.strategy.loaders import (
    check_training_batch,
    check_training_loader,
    check_validation_batch,
    check_validation_loaders,
)
from project.strategy.precision import HybridPrecision
from project.strategy.ranks import join, meet
from project.strategy.stop import StopRequest, listen_while_fitting, requeue
from project.strategy.unsupported import (
    check_anomaly_detection,
    check_module,
    check_optimizers,
    check_parts,
    check_returned,
    check_trainer,
)

Found = TypeVar("Found")

AROUND_BACKWARD = ("on_before_zero_grad", "on_before_backward", "on_after_backward")
BEFORE_CLIPPING = ("on_before_optimizer_step", "configure_gradient_clipping")


class HybridParallelStrategy(LaunchedStrategy):
    """Trains a `HybridModule` under a layout; one rank takes the same road as sixteen.

    `precision` is for what Lightning refuses to any model-parallel strategy, 16-mixed and 64-true; the others may as
    well be the Trainer's. `timeout` is every process group's.

    Lightning's hooks see what it documents. Those around backward see the gradients with the fp16 loss scale, after
    `train_batch` in an optimizer step's last batch already summed over ranks; where somebody has such a hook, who may
    change gradients in it, the norm is taken once more after it. `on_before_optimizer_step` sees them without the
    scale, before clipping, which takes the norm once more where somebody has that hook. Weights that no optimizer has
    are left out of the norm, and their gradients are cleared with the others.

    Attributes:
        step: the optimizer step (`project.engine.step`), from `setup` on.
        checkpoints, stop: the run's checkpoints, and whether it was told to stop.
        record: what callbacks tell one another.
        clock: the clock of all ranks; this process's own before they are up.
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
        super().__init__(timeout=timeout)
        self.layout, self.timeout, self.not_finite = layout, timeout, not_finite
        self.checkpoints = RunCheckpoints(layout, asynchronous_checkpoints, run_config or {})
        self.stop = StopRequest()
        self.record = RunRecord()
        self.posted_actions: PostedActions | None = None
        self.clock = Clock()
        self._mesh: Mesh | None = None
        self._step: Step | None = None
        self._last_of_window = False
        self._losses: list[Tensor] = []  # that the present training_step was given

    # -- ranks --------------------------------------------------------------------------------------------------------

    def new_launcher(self) -> ForkLauncher | None:
        assert self.cluster_environment is not None
        return None if self.cluster_environment.creates_processes_externally else ForkLauncher(self, self.stop)

    def found_first(self, find: Callable[[], Found | None]) -> Found | None:
        """Returns what `find` finds before the fit: in the process that will fork the ranks, or on rank 0 of those that
        are there already, which then all know it."""
        if self.launcher is not None:
            return find()
        self._join()
        find_here = find if self.is_global_zero else nothing
        return self.broadcast(each_for_itself(find_here, "looking for a checkpoint"))

    def setup_environment(self) -> None:
        self._join()
        self._mesh, self.clock = meet(self.layout, self.root_device, self.timeout, self.num_processes)

    def _join(self) -> None:
        assert self.accelerator is not None
        assert self.cluster_environment is not None
        self.accelerator.setup_device(self.root_device)
        self.set_world_ranks()
        join(self.cluster_environment, self.root_device, self.timeout)
        if self.launcher is None and self.posted_actions is None:
            assert dist.group.WORLD is not None
            store = dist.group.WORLD.get_group_store()
            self.posted_actions = PostedActions(store, self.global_rank, self.world_size, self.timeout)

    @property
    def mesh(self) -> Mesh:
        assert self._mesh is not None, "there is no mesh before the processes are up"
        return self._mesh

    @property
    def device_mesh(self) -> DeviceMesh:
        """The mesh of the dense weights, for Lightning."""
        return self.mesh.dense

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": self.layout.dp, "rank": self.mesh.dp.get_local_rank()}

    def note(self, action: str) -> None:
        """Notes what this rank begins, for the watchdog."""
        assert self.lightning_module is not None
        text = f"step {self.lightning_module.trainer.global_step + 1}, {action}"
        if isinstance(self.launcher, ForkLauncher):
            self.launcher.last_actions.note(self.global_rank, text)
        elif self.posted_actions is not None:
            self.posted_actions.note(text)

    def on_exception(self, exception: BaseException) -> None:
        """Raises:
        NotArrived: where that is what the exception means, and no launcher sees all ranks.
        """
        super().on_exception(exception)
        if self.posted_actions is None or not TIMED_OUT.search(one_line(exception)):
            return
        if (late := self.posted_actions.not_arrived()) is not None:
            raise late from None  # whoever asks for the cause is to hear this one

    def teardown(self) -> None:
        super().teardown()
        if self._step is not None:
            self._step.pipeline = None
        if self.posted_actions is not None:
            self.posted_actions.end()
        self.checkpoints.writer.release()

    # -- precision ----------------------------------------------------------------------------------------------------

    @property
    def precision_plugin(self) -> HybridPrecision:
        if self._precision_plugin is None:
            self._precision_plugin = HybridPrecision(self._precision or "32-true", self.norm_to_clip)
        assert isinstance(self._precision_plugin, HybridPrecision)
        return self._precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, precision_plugin: Precision | None) -> None:
        """Takes the Trainer's choice in the form that knows schedules. None stays None: a plugin that the strategy has
        before the Trainer asks would beat the Trainer's precision without a word."""
        if precision_plugin is None:
            self._precision_plugin = None
            return
        chosen = str(precision_plugin.precision)
        if self._precision and chosen not in ("32-true", self._precision):
            raise ValueError(f"the strategy's precision is {self._precision}, the Trainer's {chosen}: give one of them")
        self._precision_plugin = HybridPrecision(self._precision or chosen, self.norm_to_clip)

    # -- model --------------------------------------------------------------------------------------------------------

    def connect(self, model: L.LightningModule) -> None:
        if not isinstance(model, SplitModel):
            raise TypeError(f"HybridParallelStrategy trains a HybridModule, which {type(model).__name__} is not")
        check_module(model)
        super().connect(model)

    @property
    def parts(self) -> list[nn.Module]:
        """This rank's parts of the model, in the order of their stages."""
        return list(cast(nn.ModuleList, self.trained.parts))

    @property
    def trained(self) -> L.LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    def build_parts(self, module: SplitModel) -> list[nn.Module]:
        return build_parts(module, self.layout, self.mesh, self.root_device, self.precision_plugin.compute.weight_dtype)

    def setup(self, trainer: L.Trainer) -> None:
        check_trainer(trainer)
        listen = partial(listen_while_fitting, trainer, self.stop, self.cluster_environment)
        replace_signal_handlers(trainer, listen)
        super().setup(trainer)
        check_parts(self.trained)
        check_optimizers(self.plain_optimizers())
        self._step = Step(
            cast(SplitModel, self.trained),
            self.parts,
            self.layout,
            self.mesh,
            self.root_device,
            self.precision_plugin.compute,
            self.precision_plugin.loss_scale,
            self.not_finite,
            self._flags,
            self.note,
            self.optimized,
        )
        self.barrier()

    def parameters_here(self) -> int:
        return sum(local_tensor(parameter).numel() for _, parameter in named_weights(self.parts))

    # -- a batch ------------------------------------------------------------------------------------------------------

    @property
    def step(self) -> Step:
        assert self._step is not None, "there is no step before the strategy's setup"
        trainer = self.trained.trainer
        self._step.accumulate, self._step.done = trainer.accumulate_grad_batches, trainer.global_step
        return self._step

    def penalty_scale(self, targets: Tensor) -> Tensor:
        """See `Step.penalty_scale`. An epoch's last, incomplete window is divided as a complete one: Lightning's
        rule."""
        return self.step.penalty_scale(targets)

    def run_batch(self, inputs: Tensor, targets: Tensor, *, train: bool, **model_kwargs: Any) -> Tensor:
        """Runs the schedule over one batch, all microbatches, forward and (in training) backward. The gradients are
        summed over ranks after `training_step`, which may call this several times, and may add to them.

        Returns the mean loss over the targets of all replicas that count, the same on every rank, on its device."""
        if train:
            loss = self.step.train_batch(inputs, targets, last=False, **model_kwargs).loss.to(self.root_device)
            self._losses.append(loss)
            return loss
        return self.evaluate_batch(inputs, targets, **model_kwargs).loss.to(self.root_device)

    def evaluate_batch(self, inputs: Tensor, targets: Tensor, **model_kwargs: Any) -> Sums:
        """Runs the forwards alone (`Step.evaluate_batch`). A rank that was told to stop tells the others."""
        sums = self.step.evaluate_batch(inputs, targets, **model_kwargs)
        if self.step.flagged[0]:
            self._answer()
        return sums

    def train_batch(
        self, inputs: Tensor, targets: Tensor, statistics: Callable[[], Tensor] | None = None, **model_kwargs: Any
    ) -> Sums:
        """Runs the only schedule of a `training_step`, forward and backward, and sums `statistics` along with the loss
        (`Step.train_batch`). In an optimizer step's last batch the gradients are complete when it returns, so that one
        all-reduce has loss, statistics and norm: nothing else in `training_step` may change them."""
        sums = self.step.train_batch(inputs, targets, statistics, last=self._last_of_window, **model_kwargs)
        self._losses.append(sums.loss)
        return sums

    def predict_batch(self, inputs: Tensor, **model_kwargs: Any) -> Tensor:
        """The model's outputs for one batch, whole, on every rank of a replica."""
        return self.step.predict_batch(inputs, **model_kwargs)

    @property
    def grad_norm(self) -> float:
        """The global gradient norm of the last optimizer step, before clipping; the same on all ranks."""
        return float("nan") if self._step is None else self._step.grad_norm

    def norm_to_clip(self) -> float:
        """The norm of the gradients as they are now: `grad_norm`, taken once more where a hook may have changed them
        since; then it is collective."""
        if self.step.flagged[2]:
            self.step.take_norm_again()
        return self.grad_norm

    @property
    def took_step(self) -> bool:
        """True if the last optimizer step was taken: one whose gradient or loss is not finite is not."""
        return self._step is not None and self._step.finite

    # -- a step -------------------------------------------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module's `training_step`. What a window left whose optimizer step somebody did not take is cleared
        first, as Lightning does.

        Raises:
            Unsupported: if it returns anything but the loss of its batches.
        """
        losses = self.step.mean_loss.losses
        if losses and self.trained.trainer.fit_loop.epoch_loop.batch_idx % self.step.accumulate == 0:
            self.step.clear()
        self._losses = []
        returned = super().training_step(*args, **kwargs)
        check_returned(returned, self._losses)
        return returned

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Runs the plugin's hooks around a backward that the schedule has run."""
        closure_loss = self.precision_plugin.pre_backward(closure_loss, self.trained)
        return self.precision_plugin.post_backward(closure_loss, self.trained)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: L.LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """Takes an optimizer step. Lightning calls this for the last batch of a window; the closure runs its
        `training_step` and the hooks around backward."""
        self._last_of_window = True
        try:
            result = closure()
        finally:
            self._last_of_window = False
        step = self.step
        if not step.gradients_finished or step.flagged[1]:
            step.take_norm()
        if step.flagged[0]:
            self._answer()
        change = partial(before_optimizer_step, self.precision_plugin, self.trained, optimizer)
        try:
            step.update(optimizer, change, **kwargs)
        except NotFinite:
            self.checkpoints.writer.drain()
            raise
        return result

    def _flags(self) -> tuple[bool, bool, bool]:
        """Returns whether this rank has a reason to call the others, and whether a hook may change gradients after the
        norm: around backward, and before clipping."""
        called = self.stop.signal is not None or self.checkpoints.writer.failed
        observers: list[tuple[Any, type]] = [(self.trained, L.LightningModule)]
        observers += [(one, L.Callback) for one in self.trained.trainer.callbacks]  # type: ignore[attr-defined]
        around, before = (
            any(has_own(*one, names) for one in observers) for names in (AROUND_BACKWARD, BEFORE_CLIPPING)
        )
        return called, around, before

    def _answer(self) -> None:
        """Learns on all ranks which of them was told to stop, or could not write.

        Raises:
            CheckpointError: on all ranks.
        """
        signals = gathered((self.stop.signal, self.checkpoints.writer.failed))
        if any(failed for _, failed in signals):
            self.checkpoints.writer.drain()
        self.stop.signal = next((number for number, _ in signals if number is not None), None)
        self.stop.agreed = self.stop.signal is not None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Raises:
        SIGTERMException: on all ranks after the batch in which one was told to stop; the checkpoint is whole.
        Unsupported: if autograd is to detect anomalies.
        """
        super().on_train_batch_start(batch, batch_idx)
        check_anomaly_detection()
        self._end_if_stopped()
        check_training_batch(self.trained.trainer, self.layout)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Raises SIGTERMException as `on_train_batch_start` does; UnequalLoaders on all ranks."""
        self._end_if_stopped()
        check_validation_batch(self.trained.trainer, self.layout)
        return super().validation_step(*args, **kwargs)

    def _end_if_stopped(self) -> None:
        if self.stop.agreed:
            self.checkpoints.writer.drain()
            if self.is_global_zero:
                requeue(self.cluster_environment, self.stop.signal, os.environ)
            raise SIGTERMException

    def on_validation_start(self) -> None:
        super().on_validation_start()
        check_validation_loaders(self.trained.trainer, self.layout)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return dict(weights(self.parts))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        named = self.named_optimizers()[self.optimizers.index(optimizer)]
        return {"tensors": named.tensors(), "groups": named.groups()}

    def named_optimizers(self) -> list[NamedOptimizer]:
        return [NamedOptimizer(index, each, self.parts) for index, each in enumerate(self.plain_optimizers())]

    def plain_optimizers(self) -> list[Optimizer]:
        return [each.optimizer if isinstance(each, LightningOptimizer) else each for each in self.optimizers]

    def optimized(self) -> set[int]:
        """The ids of the weights that an optimizer has."""
        groups = (group for optimizer in self.plain_optimizers() for group in optimizer.param_groups)
        return {id(weight) for group in groups for weight in group["params"]}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Saves each rank's share.

        Raises:
            CheckpointError: on all ranks, if one could not write.
        """
        if storage_options is not None:
            raise TypeError("storage_options are for a CheckpointIO plugin, which this strategy does not use")
        # The last one has nothing to overlap with, and needs no memory for a copy.
        trainer = self.trained.trainer
        training = trainer.training and not trainer.fit_loop.epoch_loop.done
        self.checkpoints.save(checkpoint, Path(self.broadcast(filepath)), self.root_device, at_once=not training)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Fills weights and, while fitting, the optimizers; returns what is left for Lightning to restore.

        Raises:
            CheckpointError: see `RunCheckpoints.load_weights`.
        """
        trainer = self.trained.trainer
        fitting = trainer.state.fn == TrainerFn.FITTING
        checkpoint = self.checkpoints.load_weights(self.broadcast(str(checkpoint_path)), self.parts, fitting=fitting)
        if not fitting:
            return dict(checkpoint.meta)
        schedulers = len(trainer.lr_scheduler_configs)
        return self.checkpoints.load_optimizers(checkpoint, self.named_optimizers(), schedulers)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Does nothing: `load_checkpoint` has filled the optimizers."""

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Removes a checkpoint when the one underway is whole: until then the older one is the last."""
        self.checkpoints.writer.then(partial(remove_checkpoint, Path(filepath)))

    def link_checkpoint(self, filepath: str | Path, link: str | Path) -> None:
        """Moves the link as soon as the checkpoint underway is whole, so that it never leads nowhere."""
        self.checkpoints.writer.then(partial(put_link, Path(filepath), Path(link)))

    def on_train_start(self) -> None:
        """Restores random numbers last of all before the first batch: setting a run up may have drawn some."""
        super().on_train_start()
        check_training_loader(self.trained.trainer, self.layout)
        self.checkpoints.restore_random_numbers(self.root_device)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.checkpoints.writer.drain()


def has_own(observer: Any, base: type, names: Sequence[str]) -> bool:
    """True if it has one of these hooks, in which it may change gradients; one that says `only_reads_gradients` may
    not."""
    if getattr(observer, "only_reads_gradients", False):
        return False
    hooks = ((getattr(observer, name), getattr(base, name)) for name in names if hasattr(base, name))
    return any(getattr(own, "__func__", own) is not inherited for own, inherited in hooks)
