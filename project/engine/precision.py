"""The precision that weights are kept in and stages compute in, by Lightning's names, and fp16's loss scale."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from project.spec.precision import PRECISIONS


@dataclass
class LossScale:
    """Follows the rule and the defaults of `torch.amp.GradScaler`, whose state is per device. Here a step is good if
    the global gradient norm is finite, which every rank knows alike."""

    scale: float = 2.0**16
    growth_interval: int = 2000
    good_steps: int = 0

    def update(self, finite: bool) -> None:
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.good_steps == self.growth_interval:
            self.scale, self.good_steps = self.scale * 2, 0

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self.good_steps = state["scale"], int(state["good_steps"])


WEIGHT_DTYPE = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
AUTOCAST_DTYPE = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class ComputePrecision:
    """`name` is one of `spec.precision.PRECISIONS`.

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

    @property
    def products_dtype(self) -> torch.dtype | None:
        """The dtype of matrix products where it is not that of the weights."""
        return AUTOCAST_DTYPE.get(self.name)

    def compute_context(self, device: torch.device) -> AbstractContextManager:
        """Autocast around one stage's forward or the loss. It must not span the backward."""
        dtype = self.products_dtype
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype, cache_enabled=False)

    def loss_scale(self) -> LossScale | None:
        """A new dynamic loss scale where fp16 needs one."""
        return LossScale() if self.name == "16-mixed" else None
