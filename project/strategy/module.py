"""What a model brings to be trained by `HybridParallelStrategy`: parts, a plan, initial weights, a loss."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from project.parallel.layout import ParallelLayout
from project.parallel.plan import Plan
from project.pipeline.partition import Costs, Part

if TYPE_CHECKING:
    from project.strategy.hybrid import HybridParallelStrategy


class HybridModule(L.LightningModule, ABC):
    """A LightningModule whose `training_step` asks the strategy to run forward and backward in one.

    `parts` holds what is on this rank. Parameters keep their global names: see `named_weights`.
    """

    parts: nn.ModuleList

    @abstractmethod
    def layer_costs(self) -> Costs:
        """What there is to divide over the stages, and what it costs."""

    @abstractmethod
    def build_part(self, part: Part) -> nn.Module:
        """A part of the model, with the whole model's module names. Called on the meta device."""

    @abstractmethod
    def plan(self, layout: ParallelLayout) -> Plan:
        """What each module does over the tensor-parallel axis, or over others that its row names."""

    @abstractmethod
    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        """The whole parameter, or matrix `index` of a stacked one: a function of its name, never of the layout."""

    @abstractmethod
    def activation_shape(self, inputs: torch.Size, layout: ParallelLayout) -> tuple[int, ...]:
        """Of what a rank of one stage sends the next for a microbatch of such inputs."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over one microbatch, on the last stage."""

    @abstractmethod
    def units(self, part: nn.Module) -> Iterable[nn.Module]:
        """The modules, as a rule the layers, that are recomputed one at a time, and whose weights are gathered together
        where replicas hold shards of them."""

    def reset_part(self, part: nn.Module) -> None:
        """After the weights: fills the buffers, which have no values when a part is built on the meta device."""
        if buffers := [name for name, _ in part.named_buffers()]:
            raise ValueError(f"buffers without values: {', '.join(buffers)}; fill them in reset_part")

    @property
    def strategy(self) -> "HybridParallelStrategy":
        from project.strategy.hybrid import HybridParallelStrategy  # which imports this module

        strategy = self.trainer.strategy
        if not isinstance(strategy, HybridParallelStrategy):
            raise TypeError(f"{type(self).__name__} is trained by Trainer(strategy=HybridParallelStrategy(...))")
        return strategy

    def configure_model(self) -> None:
        if not hasattr(self, "parts"):
            self.parts = nn.ModuleList(self.strategy.build_parts(self))

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters by their global names."""
        for part in self.parts:
            yield from part.named_parameters()

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: Lightning calls this between `training_step` and backward, and here the gradients are there by
        then. The strategy zeroes them after the optimizer's step."""
