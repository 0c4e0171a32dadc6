"""The LightningModule of the mixture-of-experts language model."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from project.model.balance import BalanceReport, updated_bias
from project.model.block import Block
from project.model.config import ModelConfig
from project.model.init import initial_weight, reset_buffers
from project.model.transformer import Balancing, Transformer
from project.parallel.layout import ParallelLayout
from project.parallel.plan import Plan
from project.parallel.recompute import recompute_layers
from project.parallel.tensor import transformer_plan
from project.pipeline.partition import Part
from project.strategy.hybrid import HybridParallelStrategy
from project.strategy.module import HybridModule
from project.training.loss import cross_entropy
from project.training.lr_schedule import warmup_cosine
from project.training.optimizer import OptimizerConfig, build_optimizer

STATISTICS = 3  # auxiliary loss, z-loss, entropy; a layer's row continues with its experts' loads


class MoEModule(HybridModule):
    """After each batch `expert_load` (assignments `[layers, experts]`) and `router_entropy` (`[layers]`, nats) are
    those of the optimizer step so far, and the same on every rank; what is logged is too."""

    def __init__(self, config: ModelConfig, optimizer: OptimizerConfig, seed: int = 0) -> None:
        super().__init__()
        self.config, self.optimizer_config, self.seed = config, optimizer, seed
        self.expert_load = torch.zeros(config.num_layers, config.num_experts)
        self.router_entropy = torch.zeros(config.num_layers)
        # Of the batches accumulated so far.
        self.losses: list[Tensor] = []
        self.tables: list[Tensor] = []

    # -- what the strategy asks for -------------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        return self.config.num_layers

    def build_part(self, part: Part) -> Transformer:
        return Transformer(self.config, part.layers, first=part.first, last=part.last)

    def plan(self, layout: ParallelLayout) -> Plan:
        return transformer_plan(layout, shared_expert=self.config.num_shared_experts > 0)

    def prepare_part(self, part: nn.Module, layout: ParallelLayout) -> None:
        assert isinstance(part, Transformer)
        recompute_layers(part.layers, layout.recompute)

    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        return initial_weight(self.config, self.seed, name, shape, index)

    def reset_part(self, part: nn.Module) -> None:
        assert isinstance(part, Transformer)
        reset_buffers(part)

    def activation_shape(self, batch: int, seq_len: int, layout: ParallelLayout) -> tuple[int, ...]:
        return batch, seq_len // layout.tp, self.config.d_model

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    # -- steps ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        balancing = Balancing(penalty_scale=self.strategy.loss_factor)
        loss = self.strategy.run_batch(batch["tokens"], batch["targets"], train=True, balancing=balancing)
        table = self.strategy.sum_over_stages(self.tabulate(balancing))
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.losses, self.tables = [], []
        self.losses.append(loss)
        self.tables.append(table)
        auxiliary, z, self.router_entropy = torch.stack(self.tables).mean(0)[:, :STATISTICS].T
        self.expert_load = torch.stack(self.tables).sum(0)[:, STATISTICS:]
        mean_loss = torch.stack(self.losses).mean()
        self.log_dict({"train/loss": mean_loss, "train/aux_loss": auxiliary.mean(), "train/z_loss": z.mean()})
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluate("test", batch)

    def evaluate(self, stage: str, batch: dict[str, Tensor]) -> None:
        loss = self.strategy.run_batch(batch["tokens"], batch["targets"], train=False)
        replicas = self.strategy.mesh.dp.get_group()
        self.log(f"{stage}/loss", loss, batch_size=len(batch["tokens"]), sync_dist=True, sync_dist_group=replicas)

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

    # -- balance --------------------------------------------------------------------------------------------------

    def tabulate(self, balancing: Balancing) -> Tensor:
        """This stage's layers' rows of `[layers, STATISTICS + experts]`, means (of loads: sums) over microbatches;
        zeros for the layers of other stages."""
        table = torch.zeros(
            self.config.num_layers,
            STATISTICS + self.config.num_experts,
            dtype=torch.float64,
            device=self.strategy.root_device,
        )
        for layer, reports in balancing.reports.items():
            table[layer] = torch.stack([row(report) for report in reports]).sum(0)
        table[:, :STATISTICS] /= self.strategy.layout.microbatches
        return table

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The biases move once an optimizer step, from the loads of all its batches."""
        stepped = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch
        if self.config.expert_balance == "bias" and stepped and self.strategy.took_step:
            blocks = {index: block for part in self.parts for index, block in cast(Transformer, part).layers.items()}
            for index, block in blocks.items():
                bias = cast(Block, block).moe.router.expert_bias
                bias.copy_(updated_bias(bias, self.expert_load[int(index)].to(bias), self.config.bias_update_rate))

    @property
    def strategy(self) -> HybridParallelStrategy:
        strategy = self.trainer.strategy
        assert isinstance(strategy, HybridParallelStrategy)
        return strategy


def row(report: BalanceReport) -> Tensor:
    scalars = torch.stack((report.auxiliary_loss, report.z_loss, report.entropy))
    return torch.cat((scalars, report.load_E)).double()
