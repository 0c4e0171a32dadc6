"""A callback that notes where the host waits for the device: `torch.cuda.set_sync_debug_mode("warn")`."""

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

ROOT = Path(__file__).resolve().parents[2]


class SyncWarnings(Callback):
    """Watches the steps from `first` on, counted from 0, until the end of training; rank 0 writes the counts of a line
    a step into `waits.json` of the run folder."""

    def __init__(self, run_folder: str, first: int = 2) -> None:
        self.file, self.first = Path(run_folder) / "waits.json", first
        self.counts: Counter[str] = Counter()
        self.watch: warnings.catch_warnings | None = None

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx != self.first or trainer.strategy.root_device.type != "cuda":
            return
        self.watch = warnings.catch_warnings()
        self.watch.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = self.noted  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")

    def noted(self, message: Any, category: Any, filename: str, line: int, *_: Any) -> None:
        if "synchroniz" in str(message):
            self.counts[f"{filename.removeprefix(f'{ROOT}/').split('site-packages/')[-1]}:{line}"] += 1

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        if self.watch is not None:
            torch.cuda.set_sync_debug_mode("default")
            self.watch.__exit__(None, None, None)
        steps = trainer.global_step - self.first
        if trainer.is_global_zero:
            self.file.write_text(json.dumps({where: count / steps for where, count in self.counts.most_common()}))
