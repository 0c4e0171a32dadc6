"""The LightningModule of the mixture-of-experts language model."""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from project.engine.plan import Plan
from project.engine.transformer_plan import transformer_plan
from project.model.balance import BalanceReport, updated_bias
from project.model.block import Block
from project.model.init import initial_weight, reset_buffers
from project.model.transformer import Balancing, Transformer
from project.spec.cost import stage_costs
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Costs, Part
from project.state.weights.weights import Weights
from project.strategy.module import HybridModule
from project.training.loss import cross_entropy
from project.training.lr_schedule import warmup_cosine
from project.training.optimizer import OptimizerConfig, build_optimizer

STATISTICS = 4  # auxiliary loss, z-loss, entropy, dropped fraction; a layer's row continues with its experts' loads


class MoEModule(HybridModule):
    """After each batch `expert_load` (assignments `[layers, experts]`) and `router_entropy` (`[layers]`, nats) are
    those of the optimizer step so far, and the same on every rank; what is logged is too. `seq_len` is what the
    stages are balanced for. With `weights` it begins with those, else with random ones."""

    def __init__(
        self,
        config: ModelConfig,
        optimizer: OptimizerConfig,
        seed: int = 0,
        seq_len: int | None = None,
        weights: Weights | None = None,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.seq_len = seq_len or config.max_seq_len
        self.config, self.optimizer_config, self.seed = config, optimizer, seed
        self.expert_load = torch.zeros(config.num_layers, config.num_experts)
        self.router_entropy = torch.zeros(config.num_layers)
        # Of the batches accumulated so far.
        self.losses: list[Tensor] = []
        self.tables: list[Tensor] = []

    # -- what the strategy asks for -------------------------------------------------------------------------------

    def layer_costs(self) -> Costs:
        return Costs(*stage_costs(self.config, self.seq_len))

    def build_part(self, part: Part) -> Transformer:
        return Transformer(self.config, part.layers, first=part.first, last=part.last)

    def plan(self, layout: ParallelLayout) -> Plan:
        return transformer_plan(layout, self.config)

    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        if self.weights is not None:
            return self.weights.read(name, index)
        return initial_weight(self.config, self.seed, name, shape, index)

    def units(self, part: nn.Module) -> Iterable[nn.Module]:
        assert isinstance(part, Transformer)
        return part.layers.values()

    def reset_part(self, part: nn.Module) -> None:
        assert isinstance(part, Transformer)
        reset_buffers(part)
        if self.weights is not None and self.weights.config.expert_balance == self.config.expert_balance == "bias":
            for name, buffer in part.named_buffers():
                if name.endswith("router.expert_bias"):
                    buffer.copy_(self.weights.read(name))

    def activation_shape(self, inputs: torch.Size, layout: ParallelLayout) -> tuple[int, ...]:
        batch, seq_len = inputs
        return batch, seq_len // layout.tp, self.config.d_model

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    # -- steps ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        balancing = Balancing(penalty_scale=self.strategy.loss_factor)
        loss = self.strategy.run_batch(batch["tokens"], batch["targets"], train=True, balancing=balancing)
        table = self.strategy.sum_over_replicas_and_stages(self.tabulate(balancing))
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.losses, self.tables = [], []
        self.losses.append(loss)
        self.tables.append(table)
        means_LK = torch.stack(self.tables).mean(0)[:, :STATISTICS]
        self.router_entropy = means_LK[:, 2]
        self.expert_load = torch.stack(self.tables).sum(0)[:, STATISTICS:]
        # Over the layers that have experts; the rows of the others are zeros.
        auxiliary, z, _, dropped = means_LK.sum(0) / max(1, len(self.config.moe_layers))
        self.log_dict(
            {
                "train/loss": torch.stack(self.losses).mean(),
                "train/aux_loss": auxiliary,
                "train/z_loss": z,
                "train/dropped_fraction": dropped,
            }
        )
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluate("test", batch)

    def evaluate(self, stage: str, batch: dict[str, Tensor]) -> None:
        loss = self.strategy.run_batch(batch["tokens"], batch["targets"], train=False)
        replicas = self.strategy.mesh.dp.get_group()  # which all know the mean already; Lightning insists
        self.log(f"{stage}/loss", loss, batch_size=len(batch["tokens"]), sync_dist=True, sync_dist_group=replicas)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        """Logits `[B, S, V]`."""
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

    # -- balance --------------------------------------------------------------------------------------------------

    def tabulate(self, balancing: Balancing) -> Tensor:
        """This stage's layers' rows of `[layers, STATISTICS + experts]`, means (of loads: sums) over microbatches;
        zeros for the layers of other stages, and for those without experts."""
        table = torch.zeros(
            self.config.num_layers,
            STATISTICS + self.config.num_experts,
            dtype=torch.float64,
            device=self.strategy.root_device,
        )
        for layer, reports in balancing.reports.items():
            table[layer] = torch.stack([row(report) for report in reports]).sum(0)
        table[:, :STATISTICS] /= self.strategy.layout.microbatches * self.strategy.layout.dp
        return table

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The biases move with the weights, from the loads of all the step's batches: a callback that saves at the
        batch's end finds both moved."""
        super().optimizer_step(*args, **kwargs)
        if self.config.expert_balance == "bias" and self.strategy.took_step:
            blocks = {index: block for part in self.parts for index, block in cast(Transformer, part).layers.items()}
            for index, block in blocks.items():
                if int(index) not in self.config.moe_layers:
                    continue
                bias = cast(Block, block).moe.router.expert_bias
                bias.copy_(updated_bias(bias, self.expert_load[int(index)].to(bias), self.config.bias_update_rate))


def row(report: BalanceReport) -> Tensor:
    scalars = torch.stack((report.auxiliary_loss, report.z_loss, report.entropy, report.dropped))
    return torch.cat((scalars, report.load_E)).double()
