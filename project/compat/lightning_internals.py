"""Lightning: strategy, launcher, checkpoint callback, logged metrics and the W&B logger."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.utilities.distributed import _init_dist_connection
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from lightning.pytorch.strategies.launchers.launcher import _Launcher
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher, _WorkerOutput
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torch import Tensor
from torch.optim import Optimizer

from project.compat.torch_internals import forked_after_cuda
from project.spec.fault import Told

# -- strategy ----------------------------------------------------------------------------------------------------------

Launcher = _Launcher


class LaunchedStrategy(ModelParallelStrategy):
    """Base of a strategy with a launcher of its own."""

    def new_launcher(self) -> Launcher | None:
        """Returns what starts the ranks, or None where they are there already."""
        raise NotImplementedError

    def _configure_launcher(self) -> None:
        self._launcher = self.new_launcher()


class OwnSignalHandlers(_SignalConnector):
    """The Trainer's signal connector, with handlers that the strategy registers in place of Lightning's. It puts the
    former handlers back when the Trainer has finished."""

    def __init__(self, trainer: L.Trainer, register: Callable[[], None]) -> None:
        super().__init__(trainer)
        self.register = register

    def register_signal_handlers(self) -> None:
        self._original_handlers = self._get_current_signal_handlers()
        self.register()


def replace_signal_handlers(trainer: L.Trainer, register: Callable[[], None]) -> None:
    """Has the Trainer call `register` where it would register its own handlers of signals, and the ranks not ask one
    another before each batch whether one of those was called: a collective, and a wait for its result."""
    trainer._signal_connector = OwnSignalHandlers(trainer, register)
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def connect_ranks(environment: ClusterEnvironment, backend: str, **options: Any) -> None:
    """Initialises the default process group for the ranks of a cluster environment; no-op if there is one. `options`
    are those of `torch.distributed.init_process_group`. NCCL's is destroyed when the program ends."""
    _init_dist_connection(environment, backend, **options)


def random_state(device: torch.device) -> dict[str, Any]:
    """Returns the states of this process's generators: torch's, Python's, NumPy's, and that of `device`, if it is a
    GPU. Lightning's own has those of all GPUs that are visible, which another machine may not have."""
    state = _collect_rng_states(include_cuda=False)
    return state if device.type == "cpu" else state | {CUDA: torch.cuda.get_rng_state(device)}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Sets the generators to what `random_state` returned. A list of all GPUs' states is of an older checkpoint: this
    rank's is the one at its device's place, if there is one."""
    _set_rng_states({name: own for name, own in state.items() if name != CUDA})
    on_gpu = state.get(CUDA)
    if isinstance(on_gpu, list):
        on_gpu = dict(enumerate(on_gpu)).get(device.index or 0)
    if on_gpu is not None and device.type == "cuda":
        torch.cuda.set_rng_state(on_gpu, device)


CUDA = "torch.cuda"


def before_optimizer_step(precision: Precision, module: L.LightningModule, optimizer: Optimizer) -> None:
    """Calls the hooks `on_before_optimizer_step` and clips gradients as the Trainer asks for: what Lightning does
    between backward and the optimizer's step."""
    precision._after_closure(module, optimizer)


# -- launcher ----------------------------------------------------------------------------------------------------------

RankZeroOutput = _WorkerOutput
"""What rank 0 tells the parent process at the end: the result of the call, the trainer's state and its metrics."""


class NoForkedCuda(Told, RuntimeError):
    """A forked rank that cannot use its GPU."""


class ForkingLauncher(_MultiProcessingLauncher):
    """Base of a launcher that forks the ranks by itself. The Trainer must find one of Lightning's kind: it returns no
    predictions from processes that end, for one."""

    def __init__(self, strategy: ParallelStrategy) -> None:
        super().__init__(strategy, start_method="fork")
        self.strategy = strategy

    def check_cuda_is_untouched(self) -> None:
        """Raises `RuntimeError` if the ranks need GPUs and this process has a CUDA context, which no fork survives.
        Lightning's own check finds that out in the ranks alone."""
        if torch.cuda.is_initialized() and self.strategy.root_device.type == "cuda":
            raise RuntimeError(
                "CUDA was used before the ranks were forked, which then cannot use it: begin with the fit"
            )

    def check_fork_can_use_cuda(self) -> None:
        """Raises `RuntimeError` in a rank that needs a GPU and cannot use it: where NVML cannot be read, torch counts
        the GPUs by starting CUDA, of which the parent then knows nothing."""
        if self.strategy.root_device.type == "cuda" and forked_after_cuda():
            raise NoForkedCuda(
                "CUDA was started before the ranks were forked, probably to count the GPUs because NVML could not be "
                "read (does `nvidia-smi` work?); mend that, or start each rank by itself, with torchrun"
            )

    def rank_zero_output(self, trainer: L.Trainer, results: Any) -> RankZeroOutput:
        """Returns what rank 0 tells the parent. Lightning's own also ships the weights; of a model in pieces rank 0
        has but one."""
        best = getattr(trainer.checkpoint_callback, "best_model_path", None)
        return RankZeroOutput(best, None, trainer.state, results, self.get_extra_results(trainer))

    def adopt(self, output: RankZeroOutput, trainer: L.Trainer) -> None:
        """Gives the parent's trainer the state, the metrics and the best checkpoint's path of rank 0."""
        self._recover_results_in_main_process(output, trainer)


# -- checkpoint callback -----------------------------------------------------------------------------------------------

Monitored = dict[str, Tensor]


class OpenModelCheckpoint(ModelCheckpoint):
    """Base of a callback that saves in its own way. `save`, `save_monitored`, `save_last_one`, `is_to_be_removed` and
    `link` are Lightning's unless overridden; the rest is called."""

    def monitored(self, trainer: L.Trainer) -> Monitored:
        """Returns the metrics by which checkpoints are named and compared, with `epoch` and `step`."""
        return self._monitor_candidates(trainer)

    def skips_saving(self, trainer: L.Trainer) -> bool:
        """Tells whether nothing is to be saved: no fit, a sanity check, or saved at this step already."""
        return self._should_skip_saving_checkpoint(trainer)

    @property
    def saved_at_step(self) -> int:
        """The trainer's `global_step` at the last save."""
        return self._last_global_step_saved

    def save_best(self, trainer: L.Trainer, monitored: Monitored) -> None:
        """Saves if the present weights are among the `save_top_k`."""
        self._save_topk_checkpoint(trainer, monitored)

    def remove(self, trainer: L.Trainer, path: str) -> None:
        """Asks the strategy to remove a checkpoint."""
        self._remove_checkpoint(trainer, path)

    def save(self, trainer: L.Trainer, path: str) -> None:
        """Saves a checkpoint under a path."""
        super()._save_checkpoint(trainer, path)

    def save_monitored(self, trainer: L.Trainer, monitored: Monitored) -> None:
        """Saves if the monitored metric is among the best, and removes the checkpoint that no longer is."""
        super()._save_monitor_checkpoint(trainer, monitored)

    def save_last_one(self, trainer: L.Trainer, monitored: Monitored) -> None:
        """Saves or links the last checkpoint, as `save_last` asks for."""
        super()._save_last_checkpoint(trainer, monitored)

    def is_to_be_removed(self, trainer: L.Trainer, previous: str, current: str) -> bool:
        """Tells whether `previous` goes now that `current` is there."""
        return super()._should_remove_checkpoint(trainer, previous, current)

    @staticmethod
    def link(trainer: L.Trainer, path: str, link: str) -> None:
        """Makes `link` lead to the checkpoint."""
        ModelCheckpoint._link_checkpoint(trainer, path, link)

    # Lightning calls these.

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        self.save(trainer, filepath)

    def _save_monitor_checkpoint(self, trainer: L.Trainer, monitor_candidates: Monitored) -> None:
        self.save_monitored(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: L.Trainer, monitor_candidates: Monitored) -> None:
        self.save_last_one(trainer, monitor_candidates)

    def _should_remove_checkpoint(self, trainer: L.Trainer, previous: str, current: str) -> bool:
        return self.is_to_be_removed(trainer, previous, current)

    def _link_checkpoint(self, trainer: L.Trainer, filepath: str, linkpath: str) -> None:  # type: ignore[override]
        self.link(trainer, filepath, linkpath)


# -- metrics of the present step ---------------------------------------------------------------------------------------


def logs_this_step(trainer: L.Trainer) -> bool:
    """Tells whether the present step is one of every `log_every_n_steps`."""
    return trainer._logger_connector.should_update_logs


def row_to_be_logged(trainer: L.Trainer) -> dict[str, Any] | None:
    """Returns the metrics that Lightning will log when the callbacks of the present batch are done; None outside of a
    batch, and in a step that is not logged."""
    connector = trainer._logger_connector
    in_a_batch = connector._first_loop_iter is not None
    return dict(connector.metrics["log"]) if in_a_batch and connector.should_update_logs else None


def accumulates_on(trainer: L.Trainer) -> bool:
    """Tells whether the present batch is not the last of its optimizer step, so that its gradients wait for others."""
    return trainer.fit_loop._should_accumulate()


def validation_is_due_again(trainer: L.Trainer) -> None:
    """Has the state say that a validation after this step stopped in its first batch, so that a resumed run makes all
    of it; where none is due Lightning does not look. The run is about to end."""
    progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    before = progress.total.completed - progress.current.completed
    for counts, done in ((progress.total, before), (progress.current, 0)):
        counts.ready = counts.started = done + 1
        counts.processed = counts.completed = done


# -- Weights & Biases --------------------------------------------------------------------------------------------------


class OpenWandbLogger(WandbLogger):
    """Base of a logger that decides itself when its run begins, goes on and ends."""

    @property
    def init_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `wandb.init`, to be changed before the run begins."""
        return self._wandb_init

    @property
    def begun(self) -> Any | None:
        """The run, or None before it has begun; `experiment` would begin it."""
        return self._experiment

    def go_on_with(self, run_id: str) -> None:
        """Has the next run be another part of the one with this id."""
        self._wandb_init["id"] = self._id = run_id

    def let_go(self) -> Any | None:
        """Returns the run, or None, and forgets it: what is logged afterwards goes on with its id."""
        run, self._experiment = self._experiment, None
        if run is not None:
            self._wandb_init["id"] = run.id
        return run
