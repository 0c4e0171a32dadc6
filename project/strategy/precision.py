"""Precision under a schedule that runs backward inside `training_step`, with gradients on several meshes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer

from project.compat.lightning_strategy import before_optimizer_step
from project.compat.torch_tensors import clamp_in_place, scale_in_place
from project.engine.gradients import local_gradients
from project.engine.loss_scale import LossScale
from project.spec.layout import PRECISIONS

if TYPE_CHECKING:
    from project.strategy.hybrid import HybridParallelStrategy

WEIGHT_DTYPE = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
AUTOCAST_DTYPE = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class HybridPrecision(Precision):
    """Autocast belongs around a stage's forward, not around the step; the step is taken or skipped by all ranks."""

    def __init__(self, precision: str, strategy: "HybridParallelStrategy") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r}: legal are {', '.join(PRECISIONS)}")
        self.precision = precision  # type: ignore[assignment]
        self.strategy = strategy
        self.weight_dtype = WEIGHT_DTYPE.get(precision, torch.float32)
        self.loss_scale = LossScale() if precision == "16-mixed" else None

    @property
    def scale(self) -> float:
        return self.loss_scale.scale if self.loss_scale else 1.0

    def compute_context(self) -> AbstractContextManager:
        """Around a stage's forward and the loss."""
        dtype = AUTOCAST_DTYPE.get(self.precision)
        if dtype is None:
            return nullcontext()
        return torch.autocast(self.strategy.root_device.type, dtype=dtype, cache_enabled=False)

    def convert_input(self, data: Any) -> Any:
        return data.to(self.weight_dtype) if isinstance(data, torch.Tensor) and data.is_floating_point() else data

    def forward_context(self) -> AbstractContextManager:
        return nullcontext()

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Optimizer, model: L.LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """Backward, one reduction, the norm, hooks and clipping, and the step: or none where some rank's gradient
        overflowed."""
        result = closure()
        with self.strategy.phases.during("gradients"):
            self.strategy.finish_gradients()
            before_optimizer_step(self, model, optimizer)
        with self.strategy.phases.during("optimizer"):
            if self.strategy.took_step:
                optimizer.step(**kwargs)
            if self.loss_scale:
                self.loss_scale.update(self.strategy.took_step)
            optimizer.zero_grad()
        return result

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        """By the norm of the whole model's gradient, one coefficient on all ranks; or by value."""
        grads = local_gradients(self.main_params(optimizer))
        if clip_val <= 0 or not grads:
            return
        if gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            clamp_in_place(grads, clip_val)
        else:
            coefficient = float(clip_val) / (self.strategy.grad_norm + 1e-6)
            if coefficient < 1.0:
                scale_in_place(grads, coefficient)

    def state_dict(self) -> dict[str, Any]:
        return self.loss_scale.state_dict() if self.loss_scale else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.loss_scale and state_dict:
            self.loss_scale.load_state_dict(state_dict)
