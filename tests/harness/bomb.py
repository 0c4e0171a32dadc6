"""A callback that makes one rank fail, each in its way, at the start of a batch."""

import os
import signal
import time

import lightning.pytorch as L


class Bomb(L.Callback):
    def __init__(self, rank: int, kind: str, batch: int = 1) -> None:
        self.rank, self.kind, self.batch = rank, kind, batch

    def on_train_batch_start(self, trainer: L.Trainer, module: object, batch: object, batch_idx: int) -> None:
        if trainer.global_rank != self.rank or batch_idx != self.batch:
            return
        if self.kind == "kill once" and os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
            return
        print(f"bomb {time.time()}", flush=True)
        if self.kind == "sleep":  # deaf to SIGTERM, as a rank in the middle of a batch is
            time.sleep(15)
            os._exit(1)
        if self.kind == "raise":
            raise ZeroDivisionError("planted in a callback")
        os.kill(os.getpid(), signal.SIGSTOP if self.kind == "hang" else signal.SIGKILL)
