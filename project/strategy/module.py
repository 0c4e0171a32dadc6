"""What a model brings to be trained by `HybridParallelStrategy`: parts, a plan, initial weights, a loss."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, cast

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from project.parallel.layout import ParallelLayout
from project.parallel.plan import Plan
from project.pipeline.partition import Part


class PartBuilder(Protocol):
    def build_parts(self, module: "HybridModule") -> list[nn.Module]: ...


class HybridModule(L.LightningModule, ABC):
    """A LightningModule whose `training_step` asks the strategy to run forward and backward in one.

    `parts` holds what is on this rank. Parameters keep their global names: see `named_weights`.
    """

    parts: nn.ModuleList

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """How many layers there are to divide over the stages."""

    @abstractmethod
    def build_part(self, part: Part) -> nn.Module:
        """A part of the model, with the whole model's module names. Called on the meta device."""

    @abstractmethod
    def plan(self, layout: ParallelLayout) -> Plan:
        """What each module does over the tensor-parallel axis."""

    @abstractmethod
    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        """The whole parameter, or matrix `index` of a stacked one: a function of its name, never of the layout."""

    @abstractmethod
    def activation_shape(self, batch: int, seq_len: int, layout: ParallelLayout) -> tuple[int, ...]:
        """Of what one stage sends the next."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over one microbatch, on the last stage."""

    def prepare_part(self, part: nn.Module, layout: ParallelLayout) -> None:
        """After the plan, before there is storage: activation checkpointing."""

    def reset_part(self, part: nn.Module) -> None:
        """After the weights: buffers."""

    def configure_model(self) -> None:
        if not hasattr(self, "parts"):
            self.parts = nn.ModuleList(cast(PartBuilder, self.trainer.strategy).build_parts(self))

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters by their global names."""
        for part in self.parts:
            yield from part.named_parameters()

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: Lightning calls this between `training_step` and backward, and here the gradients are there by
        then. The strategy zeroes them after the optimizer's step."""
