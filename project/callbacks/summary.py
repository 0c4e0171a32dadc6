"""Writes `summary.json`: after every step with status "interrupted", so that it is true of a run killed at any moment,
and at the end as "completed"; and prints it as a table."""

import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.table import Table

from project.callbacks.expert_metrics import ExpertLoad
from project.callbacks.layout_table import placement
from project.callbacks.observed import observed, over_ranks, strategy_of, tokens_in
from project.engine.mesh import gathered
from project.observe.memory import GPU_MEMORY, gpu_memory_bytes, peak_memory_bytes
from project.observe.provenance import command_started, commit, device_name
from project.observe.throughput import Median
from project.run_folder import layout_entry, mark_failed, mark_interrupted, read_summary, write_summary
from project.spec.cost import active_parameters, total_parameters
from project.spec.disk import NotWritten
from project.spec.figures import MEDIANS
from project.spec.units import number


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
            "ranks": [asdict(rank) for rank in ranks],
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
        with suppress(NotWritten):  # the command tries again, and says so
            if isinstance(exception, KeyboardInterrupt | SIGTERMException):
                mark_interrupted(self.run_folder)
            else:
                mark_failed(self.run_folder, error_line(exception))

    def record_step(self, trainer: L.Trainer) -> None:
        for name, median in self.medians.items():
            if (value := logged(trainer, f"train/{name}")) is not None:
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
        """Gathers every rank's memory; collective, and so not after every step: the first nearly reaches the peak."""
        device = trainer.strategy.root_device
        here = [peak_memory_bytes(device), *(gpu_memory_bytes(device) or ())]
        peaks, *on_gpus = ([int(size) for size in ranks] for ranks in over_ranks(trainer, list(map(float, here))))
        self.summary["peak_memory_bytes_per_rank"] = peaks
        if on_gpus:
            named = [dict(zip(GPU_MEMORY, rank, strict=True)) for rank in zip(*on_gpus, strict=True)]
            self.summary["gpu_memory_bytes_per_rank"] = named

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


class SummaryTable(Callback):
    """Stands after `RunSummary`."""

    def __init__(self, run_folder: str) -> None:
        self.run_folder = Path(run_folder)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        summary = read_summary(self.run_folder) if trainer.is_global_zero else None
        if summary is not None:
            console = Console()
            console.print(summary_table(summary))
            console.print(f"run folder: {self.run_folder}", soft_wrap=True)


def summary_table(summary: dict[str, Any]) -> Table:
    """Returns a table without the entries that are null."""
    table = Table(title="summary", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    rows = {
        "layout": "pp{pp} x dp{dp} x tp{tp}, experts ep{ep} x etp{etp}".format(**summary["layout"]),
        "steps": f"{summary['steps']:,}, {summary['tokens']:,} tokens",
        "loss": loss_line(summary),
        "validation loss": figure(summary["val_loss"], ".4f"),
        "step time, median": figure(summary["step_time_s"], ".3f", " s"),
        "throughput, median": figure(summary["tokens_per_second"], ",.0f", " tokens/s"),
        "MFU, median": figure(summary["mfu"], ".1%"),
        "first step after": figure(summary["time_to_first_step_s"], ".1f", " s"),
        "parameters": f"{summary['parameters_total']:,}, {summary['parameters_active']:,} active",
        "peak memory": memory_line(summary["peak_memory_bytes_per_rank"], summary["gpu_memory_bytes_per_rank"]),
        "expert load": load_line(summary["expert_load"]),
    }
    for name, text in rows.items():
        if text is not None:
            table.add_row(name, text)
    return table


def figure(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else f"{value:{form}}{unit}"


def loss_line(summary: dict[str, Any]) -> str | None:
    first, last = (figure(summary[f"train_loss_{which}"], ".4f") for which in ("first", "last"))
    return None if last is None else f"{first or '?'} at first, {last} at last"


def memory_line(peaks: list[int] | None, gpus: list[dict[str, int]] | None = None) -> str | None:
    """Returns the largest rank's peak, and on GPUs the largest of each of `GPU_MEMORY`. A sum over ranks would count
    the pages that forked ranks share several times."""
    if gpus:
        said = {name: number(max(gpu[name] for gpu in gpus), "B") for name in GPU_MEMORY}
        allocated, reserved, device = said.values()
        return f"{allocated} on the largest rank, {reserved} reserved, {device} in use on its GPU"
    return f"{number(max(peaks), 'B')} on the largest rank" if peaks else None


def load_line(load: list[list[float] | None] | None) -> str | None:
    """Returns the range of the experts' shares. Null stands for a layer without experts."""
    shares = [share for layer in load or [] for share in layer or []]
    return f"{min(shares):.1%} to {max(shares):.1%} of a layer's tokens" if shares else None
