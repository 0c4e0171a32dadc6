"""Trains on the first batch again and again: a model that cannot learn even that is broken."""

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class RepeatBatch(Callback):
    """Overwrites every later batch with the first one. Unlike Lightning's `overfit_batches` it leaves the sampler
    alone, and so works with any."""

    def __init__(self) -> None:
        self.first: dict[str, Tensor] | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.first is None:
            self.first = {name: tensor.clone() for name, tensor in batch.items()}
        with torch.no_grad():
            for name, tensor in self.first.items():
                batch[name].copy_(tensor)
