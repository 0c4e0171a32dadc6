"""Writes `summary.json`: after every step with status "interrupted", so that it is true of a run killed at any moment,
and at the end as "completed"."""

import time
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from project.callbacks.observed import gathered, observed, over_ranks, strategy_of, tokens_in
from project.observe.expert_load import ExpertLoad
from project.observe.memory import peak_memory_bytes
from project.observe.placement import placement
from project.observe.provenance import command_started, commit, device_name
from project.observe.throughput import Median
from project.run_folder import layout_entry, mark_failed, mark_interrupted, write_summary
from project.spec.cost import active_parameters, total_parameters

MEDIANS = {name: f"train/{name}" for name in ("step_time_s", "tokens_per_second", "mfu")}


class RunSummary(Callback):
    """Reads what is logged and what callbacks leave in the record, so it stands after them.

    `started` is when the command began, as `time.time()`; by default when the process that makes this object did.
    `planned` is what was predicted for the run.
    """

    def __init__(self, run_folder: str, started: float | None = None, planned: dict[str, Any] | None = None) -> None:
        self.run_folder = run_folder
        self.started = command_started() if started is None else started
        self.summary: dict[str, Any] = {"status": "interrupted", "steps": 0, "tokens": 0, "planned": planned}
        self.medians = {name: Median() for name in MEDIANS}
        self.load: ExpertLoad | None = None
        self.tokens = 0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        strategy, config = strategy_of(trainer), observed(pl_module).config
        device = trainer.strategy.root_device
        ranks = gathered(placement(trainer.global_rank, strategy.layout, pl_module, strategy.parameters_here()))
        self.load = self.load or ExpertLoad(config.num_layers, config.num_experts)
        self.summary |= {
            "layout": layout_entry(strategy.layout),
            "ranks": [rank.entry() for rank in ranks],
            "device": device_name(device),
            "precision": str(trainer.precision),
            "torch_version": torch.__version__,
            "commit": commit() if trainer.is_global_zero else None,
            "parameters_total": total_parameters(config),
            "parameters_active": active_parameters(config),
            "parameters_per_rank": [rank.parameters for rank in ranks],
        }

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.summary["steps"] = trainer.global_step  # of a resumed run, those it was saved after

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.tokens += tokens_in(batch, strategy_of(trainer).layout)
        if trainer.global_step == self.summary["steps"]:  # a batch that is accumulated
            return
        if self.summary.get("time_to_first_step_s") is None:
            self.summary["time_to_first_step_s"] = time.time() - self.started
            self.gather_memory(trainer)
        assert self.load is not None
        self.load.update(observed(pl_module).expert_load)
        self.record_step(trainer)
        if trainer.is_global_zero:
            write_summary(self.run_folder, self.summary)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or "layout" not in self.summary:
            return
        self.gather_memory(trainer)
        if trainer.is_global_zero:
            self.summary["val_loss"] = logged(trainer, "val/loss")
            write_summary(self.run_folder, self.summary)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.gather_memory(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.summary["status"] = "completed"
        self.summary |= strategy_of(trainer).record.summary
        if trainer.is_global_zero:
            write_summary(self.run_folder, self.summary)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not trainer.is_global_zero:
            return
        if isinstance(exception, KeyboardInterrupt | SIGTERMException):
            mark_interrupted(self.run_folder)
        else:
            mark_failed(self.run_folder, error_line(exception))

    def record_step(self, trainer: L.Trainer) -> None:
        for name, median in self.medians.items():
            if (value := logged(trainer, MEDIANS[name])) is not None:
                median.add(value)
            self.summary[name] = median.value
        assert self.load is not None
        loss = logged(trainer, "train/loss")
        self.summary.setdefault("train_loss_first", loss)
        self.summary |= {
            "steps": trainer.global_step,
            "tokens": self.tokens,
            "train_loss_last": loss,
            "grad_norm_last": strategy_of(trainer).grad_norm,
            "expert_load": self.load.by_layer(),
        }
        self.summary |= strategy_of(trainer).record.summary

    def gather_memory(self, trainer: L.Trainer) -> None:
        """Gathers peak memory; collective, and so not after every step: the first one nearly reaches the peak."""
        (peaks,) = over_ranks(trainer, [peak_memory_bytes(trainer.strategy.root_device)])
        self.summary["peak_memory_bytes_per_rank"] = [int(peak) for peak in peaks]

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts that go on over the whole run, resumed or not."""
        assignments = None if self.load is None else self.load.assignments_LE.tolist()
        first = self.summary.get("train_loss_first")
        return {"tokens": self.tokens, "train_loss_first": first, "assignments": assignments}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens = state_dict["tokens"]
        if state_dict["assignments"] is not None:
            assignments_LE = torch.tensor(state_dict["assignments"], dtype=torch.float64)
            self.load = ExpertLoad(*assignments_LE.shape)
            self.load.update(assignments_LE)
            self.summary["train_loss_first"] = state_dict["train_loss_first"]


def logged(trainer: L.Trainer, name: str) -> float | None:
    value = trainer.callback_metrics.get(name)
    return None if value is None else float(value)


def error_line(exception: BaseException) -> str:
    lines = str(exception).strip().splitlines()
    return f"{type(exception).__name__}: {lines[0]}" if lines else type(exception).__name__
