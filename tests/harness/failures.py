"""Callbacks that make a rank fail at the start of a batch."""

import os
import signal
import time
from pathlib import Path

import lightning.pytorch as L


class Bomb(L.Callback):
    """Makes rank `rank` fail at batch `batch`.

    `kind` is "raise", "kill", "kill once" (not after a restart by torchrun), "hang" (by SIGSTOP) or "sleep" (deaf to
    SIGTERM for 15 s, as a rank in the middle of a batch is).
    """

    def __init__(self, rank: int, kind: str, batch: int = 1) -> None:
        self.rank, self.kind, self.batch = rank, kind, batch

    def on_train_batch_start(self, trainer: L.Trainer, module: object, batch: object, batch_idx: int) -> None:
        if trainer.global_rank != self.rank or batch_idx != self.batch:
            return
        if self.kind == "kill once" and os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
            return
        os.write(1, f"\nbomb {time.time()}\n".encode())  # a line of its own, whatever another rank writes meanwhile
        if self.kind == "sleep":
            time.sleep(15)
            os._exit(1)
        if self.kind == "raise":
            raise ZeroDivisionError("planted in a callback")
        os.kill(os.getpid(), signal.SIGSTOP if self.kind == "hang" else signal.SIGKILL)


class Dies(L.Callback):
    """Kills rank 0 at batch `batch`, after `after_s` seconds, in a job with `microbatches` microbatches, as long as the
    file `unless` does not exist."""

    def __init__(self, microbatches: int, unless: str, batch: int = 0, after_s: float = 0.0) -> None:
        self.microbatches, self.unless, self.batch, self.after_s = microbatches, Path(unless), batch, after_s

    def on_train_batch_start(self, trainer: L.Trainer, module: object, batch: object, batch_idx: int) -> None:
        meant = trainer.strategy.layout.microbatches == self.microbatches and batch_idx == self.batch
        if meant and not self.unless.exists():
            time.sleep(self.after_s)
            os.kill(os.getpid(), signal.SIGKILL)
