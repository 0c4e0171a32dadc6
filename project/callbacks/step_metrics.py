"""Logs each optimizer step's throughput, gradient norm, learning rate, expert imbalance and peak memory.

The same keys and values on every rank, so that any of them can be monitored.
"""

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from project.callbacks.expert_metrics import imbalance
from project.callbacks.observed import observed, over_ranks, strategy_of, tokens_in
from project.observe.memory import peak_memory_bytes
from project.observe.provenance import device_name
from project.observe.record import MeasuredStep
from project.observe.throughput import StepClock, model_flops_utilization
from project.spec.precision import arithmetic, peak_flops


class StepMetrics(Callback):
    """Also logs `step`, which Lightning and its loggers then take for the x axis: optimizer steps done, from 1, where
    they would count from 0.

    A step ends when its last rank is done, so that the times of steps add up to the time of the run.

    Each step as measured is left in the record.
    """

    def __init__(self) -> None:
        self.clock = StepClock()
        self.peak: float | None = None
        self.steps = self.tokens = 0
        self.learning_rate = float("nan")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kind = arithmetic(str(trainer.precision), torch.get_float32_matmul_precision())
        self.peak = peak_flops(device_name(trainer.strategy.root_device), kind)
        self.steps, self.tokens = trainer.global_step, 0
        self.clock.start(last_of_all(trainer))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Schedulers have moved on to the next step's rate by the end of the batch.
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.tokens += tokens_in(batch, strategy_of(trainer).layout)
        if trainer.global_step == self.steps:  # a batch that is accumulated
            return
        strategy_of(trainer).step.instants.done()
        done_here = strategy_of(trainer).clock.now_ns()
        done, memory = over_ranks(trainer, [done_here, peak_memory_bytes(trainer.strategy.root_device)])
        lap = self.clock.lap(int(max(done)))
        seconds = [(rank - lap.start_ns) / 1e9 for rank in done]
        strategy_of(trainer).record.last_step = MeasuredStep(lap, done_here, seconds, memory)
        metrics = self.throughput(trainer, pl_module, seconds=lap.seconds, seq_len=batch["tokens"].shape[-1])
        metrics |= {
            "train/grad_norm": strategy_of(trainer).grad_norm,
            "train/lr": self.learning_rate,
            "memory/peak_bytes_largest_rank": max(memory),
        }
        if layers := observed(pl_module).config.moe_layers:
            load_LE = observed(pl_module).expert_load[layers.start :]
            metrics["train/expert_imbalance"] = imbalance(load_LE).mean().item()
        # In double precision: Lightning would round plain floats to single.
        values = torch.tensor([*metrics.values(), trainer.global_step], dtype=torch.float64).unbind()
        pl_module.log_dict(dict(zip([*metrics, "step"], values, strict=True)), on_step=True, on_epoch=False)
        self.steps, self.tokens = trainer.global_step, 0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.clock.pause(last_of_all(trainer))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # On the module's device: a group of NCCL's sums no tensor of the host's.
        step = torch.tensor(float(trainer.global_step), dtype=torch.float64, device=pl_module.device)
        pl_module.log("step", step, sync_dist=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.clock.resume(last_of_all(trainer))

    def throughput(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *, seconds: float, seq_len: int
    ) -> dict[str, float]:
        tokens_per_second = self.tokens / seconds
        metrics = {"train/tokens_per_second": tokens_per_second, "train/step_time_s": seconds}
        if self.peak is not None:
            metrics["train/mfu"] = model_flops_utilization(
                observed(pl_module).config,
                seq_len=seq_len,
                tokens_per_second=tokens_per_second,
                ranks=trainer.world_size,
                peak=self.peak,
            )
        return metrics


def last_of_all(trainer: L.Trainer) -> int:
    """The instant, in nanoseconds on the clock of all ranks, at which the last of them asks; collective."""
    (instants,) = over_ranks(trainer, [strategy_of(trainer).clock.now_ns()])
    return int(max(instants))
