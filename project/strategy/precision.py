"""Lightning's precision plugin for a schedule that runs backward inside `training_step`."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer

from project.engine.gradients import clip_to_norm, clip_to_value, local_gradients
from project.engine.precision import ComputePrecision


class HybridPrecision(Precision):
    """Holds the compute precision and the fp16 loss scale, which the step uses and checkpoints keep. `grad_norm`
    returns the norm of the whole model's gradient, for clipping."""

    def __init__(self, precision: str, grad_norm: Callable[[], float]) -> None:
        self.compute = ComputePrecision(precision)
        self.precision = precision  # type: ignore[assignment]
        self.loss_scale = self.compute.loss_scale()
        self.grad_norm = grad_norm

    def convert_input(self, data: Any) -> Any:
        floating = isinstance(data, torch.Tensor) and data.is_floating_point()
        return data.to(self.compute.weight_dtype) if floating else data

    def forward_context(self) -> AbstractContextManager:
        """No autocast around a whole step: the step enters it around each stage's forward."""
        return nullcontext()

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        """Clips by the norm of the whole model's gradient, with one coefficient on all ranks, or by value."""
        grads = local_gradients(self.main_params(optimizer))
        if clip_val <= 0:
            return
        if gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            clip_to_value(grads, clip_val)
        else:
            clip_to_norm(grads, self.grad_norm(), float(clip_val))

    def state_dict(self) -> dict[str, Any]:
        return self.loss_scale.state_dict() if self.loss_scale else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.loss_scale and state_dict:
            self.loss_scale.load_state_dict(state_dict)
