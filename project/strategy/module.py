"""A LightningModule that `HybridParallelStrategy` trains: a `SplitModel` whose batches the strategy runs."""

from collections.abc import Iterator

import lightning.pytorch as L
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from project.engine.parts import named_weights
from project.engine.split_model import SplitModel
from project.strategy.hybrid import HybridParallelStrategy
from project.strategy.unsupported import keep_gradients


class HybridModule(L.LightningModule, SplitModel):
    """Its `training_step` asks the strategy to run forward and backward in one. `parts` holds what is on this rank, in
    the order of its stages; parameters keep their global names (`named_weights`)."""

    parts: nn.ModuleList

    @property
    def strategy(self) -> HybridParallelStrategy:
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
        return named_weights(self.parts)

    optimizer_zero_grad = keep_gradients
