"""Steps of Lightning's strategy and of its Trainer that have private names, under names of ours."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.utilities.distributed import _init_dist_connection
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.launchers.launcher import _Launcher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torch.optim import Optimizer

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
    """Has the Trainer call `register` where it would register its own handlers of signals."""
    trainer._signal_connector = OwnSignalHandlers(trainer, register)


def connect_ranks(environment: ClusterEnvironment, backend: str, **options: Any) -> None:
    """Initialises the default process group for the ranks of a cluster environment; no-op if there is one. `options`
    are those of `torch.distributed.init_process_group`. NCCL's is destroyed when the program ends."""
    _init_dist_connection(environment, backend, **options)


def random_state(cuda: bool) -> dict[str, Any]:
    """Returns the states of this process's generators: torch's, Python's, NumPy's, and those of the GPUs if asked."""
    return _collect_rng_states(include_cuda=cuda)


def set_random_state(state: dict[str, Any]) -> None:
    """Sets the generators to what `random_state` returned."""
    _set_rng_states(state)


def before_optimizer_step(precision: Precision, module: L.LightningModule, optimizer: Optimizer) -> None:
    """Calls the hooks `on_before_optimizer_step` and clips gradients as the Trainer asks for: what Lightning does
    between backward and the optimizer's step."""
    precision._after_closure(module, optimizer)
