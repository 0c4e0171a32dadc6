"""Gives W&B what other loggers are not given: each rank's step time and memory, and figures at each validation."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from project.callbacks.observed import strategy_of
from project.loggers import RunFolderWandb
from project.report.run import Run


class WandbRun(Callback):
    """Does nothing without a `RunFolderWandb` among the loggers. Stands after `StepMetrics`, whose record it reads, and
    after `Trace` and `RunSummary`, whose files the figures are drawn from: the Gantt chart shows the steps traced by
    then."""

    def __init__(self, run_folder: str) -> None:
        self.folder = Path(run_folder)
        self.step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        logger, measured = logger_of(trainer), strategy_of(trainer).record.last_step
        if logger is None or measured is None or trainer.global_step == self.step:  # the latter: accumulated
            return
        self.step = trainer.global_step
        shares = [(f"step_time_s/rank_{rank}", seconds) for rank, seconds in enumerate(measured.seconds_of_ranks)]
        shares += [(f"memory/rank_{rank}", memory) for rank, memory in enumerate(measured.memory_of_ranks)]
        logger.log_metrics(dict(shares), step=self.step)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logger = logger_of(trainer)
        if logger is not None and not trainer.sanity_checking:
            from wandb import Plotly

            found = figures(Run.read(self.folder))
            media: dict[str, Any] = {f"figures/{name}": Plotly(one) for name, one in found.items() if one is not None}
            logger.log_metrics(media, step=trainer.global_step)


def logger_of(trainer: L.Trainer) -> RunFolderWandb | None:
    """The logger on rank 0, which alone writes; None elsewhere."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RunFolderWandb)]
    return loggers[0] if loggers and trainer.is_global_zero else None


def figures(run: Run) -> dict[str, Any]:
    """Figures by name; None for what the run folder does not have yet."""
    from project.report import experts, gantt, rank_map  # not before any run starts: they import plotly

    return {
        "expert_load": next(reversed(experts.load_over_time(run).values()), None),
        "pipeline": gantt.figure(run),
        "rank_map": rank_map.figure(run),
    }
