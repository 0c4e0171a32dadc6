"""The LightningModule of the mixture-of-experts language model."""

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from project.model.balance import updated_bias
from project.model.block import Block
from project.model.transformer import Balancing, Transformer
from project.spec.metrics import STATISTICS
from project.spec.model import ModelConfig
from project.state.weights.weights import Weights
from project.strategy.module import HybridModule
from project.training.optimizer import OptimizerConfig, build_optimizer, warmup_cosine
from project.training.split_transformer import SplitTransformer


class MoEModule(SplitTransformer, HybridModule):
    """A `SplitTransformer` with the steps and the optimizer that Lightning asks for.

    Attributes:
        expert_load: assignments `[layers, experts]` of the optimizer step so far, the same on every rank, on its host.
        router_entropy: `[layers]`, in nats, the mean over the optimizer step so far, likewise.
    """

    def __init__(
        self,
        config: ModelConfig,
        optimizer: OptimizerConfig,
        seed: int = 0,
        seq_len: int | None = None,
        weights: Weights | None = None,
    ) -> None:
        super().__init__(config, seed, seq_len, weights)
        self.optimizer_config = optimizer
        self.expert_load = torch.zeros(config.num_layers, config.num_experts)
        self.router_entropy = torch.zeros(config.num_layers)
        # Of the batches accumulated so far.
        self.tables: list[Tensor] = []

    # -- steps ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        balancing = Balancing(penalty_scale=self.strategy.penalty_scale(batch["targets"]))
        tabulate = partial(self.tabulate, balancing, self.strategy.layout, self.strategy.root_device)
        sums = self.strategy.train_batch(batch["tokens"], batch["targets"], tabulate, balancing=balancing)
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.tables = []
        self.tables.append(cast(Tensor, sums.statistics))
        means_LK = torch.stack(self.tables).mean(0)[:, : len(STATISTICS)]
        self.router_entropy = means_LK[:, STATISTICS.index("entropy")]
        self.expert_load = torch.stack(self.tables).sum(0)[:, len(STATISTICS) :]
        # Over the layers that have experts; the rows of the others are zeros.
        auxiliary, z, _, dropped = means_LK.sum(0) / max(1, len(self.config.moe_layers))
        self.log_dict(
            {
                "train/loss": self.strategy.step.mean_loss.so_far(),
                "train/aux_loss": auxiliary,
                "train/z_loss": z,
                "train/dropped_fraction": dropped,
            }
        )
        return sums.loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluate("test", batch)

    def evaluate(self, stage: str, batch: dict[str, Tensor]) -> None:
        loss, count, _ = self.strategy.evaluate_batch(batch["tokens"], batch["targets"])
        # All replicas know the mean already; Lightning insists on summing it, which NCCL does on its devices alone.
        on_device, replicas = loss.to(self.strategy.root_device), self.strategy.mesh.dp.get_group()
        self.log(f"{stage}/loss", on_device, batch_size=int(count), sync_dist=True, sync_dist_group=replicas)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        """Returns logits `[B, S, V]`."""
        return self.strategy.predict_batch(batch["tokens"])

    def configure_optimizers(self) -> Any:
        config = self.optimizer_config
        optimizer = build_optimizer(config, self.named_weights())
        total = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(
            optimizer,
            lambda step: warmup_cosine(
                step, warmup_steps=config.warmup_steps, total_steps=total, final_fraction=config.final_fraction
            ),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Moves the routers' biases with the weights, by the loads of all the step's batches: a callback that saves at
        the batch's end finds both moved."""
        super().optimizer_step(*args, **kwargs)
        if self.config.expert_balance == "bias" and self.strategy.took_step:
            load_LE = self.expert_load.to(self.strategy.root_device)
            blocks = {index: block for part in self.parts for index, block in cast(Transformer, part).layers.items()}
            for index, block in blocks.items():
                if int(index) not in self.config.moe_layers:
                    continue
                bias = cast(Block, block).moe.router.expert_bias
                bias.copy_(updated_bias(bias, load_LE[int(index)].to(bias), self.config.bias_update_rate))
