"""A callback by which the jobs of one layout die, until they are mended."""

import os
import signal
import time
from pathlib import Path

import lightning.pytorch as L


class Dies(L.Callback):
    """Rank 0 is killed at that batch, `after_s`, where the layout has so many microbatches and there is no file
    `unless`."""

    def __init__(self, microbatches: int, unless: str, batch: int = 0, after_s: float = 0.0) -> None:
        self.microbatches, self.unless, self.batch, self.after_s = microbatches, Path(unless), batch, after_s

    def on_train_batch_start(self, trainer: L.Trainer, module: object, batch: object, batch_idx: int) -> None:
        meant = trainer.strategy.layout.microbatches == self.microbatches and batch_idx == self.batch
        if meant and not self.unless.exists():
            time.sleep(self.after_s)
            os.kill(os.getpid(), signal.SIGKILL)
