"""Writes the history of each rank's CUDA allocator for PyTorch's memory viewer (https://pytorch.org/memory_viz)."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

from project.compat.torch_internals import record_memory_history, write_memory_history

MOST_EVENTS = 200_000


class MemorySnapshot(Callback):
    """Records the first `steps` optimizer steps, also if the run fails within them, as a rule out of memory."""

    def __init__(self, run_folder: str, steps: int = 3) -> None:
        self.folder = Path(run_folder) / "memory"
        self.steps = steps
        self.recording = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.strategy.root_device.type != "cuda":
            rank_zero_warn("debug=memory: only CUDA's allocator keeps a history, so that none is written here")
            return
        record_memory_history(MOST_EVENTS)
        self.recording = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.steps:
            self.write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.write(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.write(trainer)

    def write(self, trainer: L.Trainer) -> None:
        """Writes the snapshot, the first time that it is called."""
        if self.recording:
            self.recording = False
            self.folder.mkdir(parents=True, exist_ok=True)
            write_memory_history(self.folder / f"rank_{trainer.global_rank}.pickle")
