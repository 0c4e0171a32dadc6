"""The interface of a model that can be split over ranks: parts, a plan, initial weights, a loss."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from project.engine.plan import Plan
from project.spec.layout import ParallelLayout
from project.spec.partition import Costs, Part

IGNORED = -100  # torch's `ignore_index`


class SplitModel(ABC):
    """Everything that the engine asks of a model. Each method describes the whole model, as if there were one rank."""

    @abstractmethod
    def layer_costs(self) -> Costs:
        """Returns the cost of each layer and of the ends, by which layers are divided over stages."""

    @abstractmethod
    def build_part(self, part: Part) -> nn.Module:
        """Builds a part of the model, with the whole model's module names. Called on the meta device."""

    @abstractmethod
    def plan(self, layout: ParallelLayout) -> Plan:
        """Returns each module's parallel style over the tensor-parallel axis, or over others that its row names."""

    @abstractmethod
    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        """Returns the whole parameter, or matrix `index` of a stacked one: a function of its name, never of the
        layout."""

    @abstractmethod
    def activation_shape(self, inputs: torch.Size, layout: ParallelLayout) -> tuple[int, ...]:
        """Returns the shape that a rank of one stage sends the next for a microbatch of inputs of this shape."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean loss over the targets of one microbatch that count, a scalar; called on the last stage. The
        engine weighs it by their number, so that a step's loss is the mean over all of them, however they fall into
        microbatches, replicas and accumulated batches; the first microbatch checks that it is such a mean."""

    def count(self, targets: Tensor) -> Tensor:
        """Returns how many of the targets count, a scalar: all but those of `IGNORED`, if they are integers. Whose
        `loss` ignores others overrides it. Without any, `loss` may be nan, but not its gradient: as torch's is."""
        if targets.is_floating_point():
            return torch.full((), targets.numel(), device=targets.device)
        return (targets != IGNORED).sum()

    @abstractmethod
    def units(self, part: nn.Module) -> Iterable[nn.Module]:
        """Returns the modules, as a rule the layers, that are recomputed one at a time, and whose weights are gathered
        together where replicas hold shards of them."""

    def reset_part(self, part: nn.Module) -> None:
        """Fills the buffers, which have no values when a part is built on the meta device; called after the weights
        are filled."""
        if buffers := [name for name, _ in part.named_buffers()]:
            raise ValueError(f"buffers without values: {', '.join(buffers)}; fill them in reset_part")
