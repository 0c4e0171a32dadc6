"""The precision that weights are kept in and stages compute in, by Lightning's names."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from project.engine.loss_scale import LossScale
from project.spec.layout import PRECISIONS

WEIGHT_DTYPE = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
AUTOCAST_DTYPE = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class ComputePrecision:
    """`name` is one of `spec.layout.PRECISIONS`.

    Raises:
        ValueError: for another name.
    """

    name: str = "32-true"

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise ValueError(f"precision={self.name!r}: legal are {', '.join(PRECISIONS)}")

    @property
    def weight_dtype(self) -> torch.dtype:
        """The dtype of weights, gradients and activations between stages."""
        return WEIGHT_DTYPE.get(self.name, torch.float32)

    def compute_context(self, device: torch.device) -> AbstractContextManager:
        """Autocast around one stage's forward or the loss. It must not span the backward."""
        dtype = AUTOCAST_DTYPE.get(self.name)
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype, cache_enabled=False)

    def loss_scale(self) -> LossScale | None:
        """A new dynamic loss scale where fp16 needs one."""
        return LossScale() if self.name == "16-mixed" else None
