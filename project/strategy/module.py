"""A LightningModule that `HybridParallelStrategy` trains: a `SplitModel` whose steps the strategy runs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from project.engine.split_model import SplitModel

if TYPE_CHECKING:
    from project.strategy.hybrid import HybridParallelStrategy


class HybridModule(L.LightningModule, SplitModel):
    """A LightningModule whose `training_step` asks the strategy to run forward and backward in one.

    `parts` holds what is on this rank. Parameters keep their global names: see `named_weights`.
    """

    parts: nn.ModuleList

    @property
    def strategy(self) -> "HybridParallelStrategy":
        from project.strategy.hybrid import HybridParallelStrategy  # which imports this module

        strategy = self.trainer.strategy
        if not isinstance(strategy, HybridParallelStrategy):
            raise TypeError(f"{type(self).__name__} is trained by Trainer(strategy=HybridParallelStrategy(...))")
        return strategy

    @property
    def device_mesh(self) -> DeviceMesh:
        """The mesh of the dense weights: axes pp, dp and tp."""
        return self.strategy.device_mesh

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
