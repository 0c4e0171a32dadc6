"""The arguments of every `Trainer` that a test builds."""

from typing import Any

import lightning.pytorch as L
from lightning.fabric.plugins.environments import LightningEnvironment

from project.strategy.hybrid import HybridParallelStrategy
from tests.harness.case import Case

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "inference_mode": False,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}


def cpu_trainer(**options: Any) -> L.Trainer:
    """A Trainer on the CPU that prints and writes nothing of its own accord, with the caller's options."""
    return L.Trainer(**(QUIET | options))


def trainer(rank: int, world_size: int, case: Case, **options: Any) -> L.Trainer:
    """A Trainer on one of the pool's ranks, with the case's layout and precision and the caller's options."""
    defaults = {
        "devices": world_size,
        "strategy": HybridParallelStrategy(case.layout, case.precision),
        "plugins": [PooledRanks(rank, world_size)],
    }
    return cpu_trainer(**(defaults | options))


class PooledRanks(LightningEnvironment):
    """The environment of a process that exists already, in a process group that exists already."""

    creates_processes_externally = True

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self._rank, self._size = rank, world_size

    def local_rank(self) -> int:
        return self._rank

    def global_rank(self) -> int:
        return self._rank

    def world_size(self) -> int:
        return self._size

    def set_global_rank(self, rank: int) -> None: ...

    def set_world_size(self, size: int) -> None: ...

    def teardown(self) -> None: ...
