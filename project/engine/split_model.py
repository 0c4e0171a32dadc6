"""What a model brings so that it can be split over ranks: parts, a plan, initial weights, a loss. No Lightning."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from project.engine.plan import Plan
from project.spec.layout import ParallelLayout
from project.spec.partition import Costs, Part


class SplitModel(ABC):
    """Everything that the engine asks of a model. Each method describes the whole model, as if there were one rank."""

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
