"""What W&B is given beside the scalars that all loggers are: each rank's share, and figures at each validation."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from project.callbacks.step_metrics import StepMetrics
from project.callbacks.trace import only
from project.loggers import RunFolderWandb
from project.report.run import Run


class WandbRun(Callback):
    """Does nothing without a `RunFolderWandb` among the loggers. Stands after `StepMetrics`, `Trace` and `RunSummary`,
    whose files the figures are made of: the Gantt chart is of the steps that are traced by then."""

    def __init__(self, run_folder: str) -> None:
        self.folder = Path(run_folder)
        self.step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        logger, metrics = logger_of(trainer), only(trainer, StepMetrics)
        if logger is None or metrics is None or trainer.global_step == self.step:  # the latter: accumulated
            return
        self.step = trainer.global_step
        ranks = enumerate(zip(metrics.seconds_of_ranks, metrics.memory_of_ranks, strict=True))
        shares = [(f"step_time_s/rank_{rank}", seconds) for rank, (seconds, _) in ranks]
        shares += [(f"memory/rank_{rank}", memory) for rank, memory in enumerate(metrics.memory_of_ranks)]
        logger.log_metrics(dict(shares), step=self.step)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logger = logger_of(trainer)
        if logger is not None and not trainer.sanity_checking:
            from wandb import Plotly

            found = figures(Run.read(self.folder))
            media: dict[str, Any] = {f"figures/{name}": Plotly(one) for name, one in found.items() if one is not None}
            logger.log_metrics(media, step=trainer.global_step)


def logger_of(trainer: L.Trainer) -> RunFolderWandb | None:
    """On rank 0, which alone writes."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RunFolderWandb)]
    return loggers[0] if loggers and trainer.is_global_zero else None


def figures(run: Run) -> dict[str, Any]:
    """None for what the run folder does not have yet."""
    from project.report import expert_load, gantt, rank_map  # not before any run starts: they import plotly

    return {
        "expert_load": next(reversed(expert_load.over_time(run).values()), None),
        "pipeline": gantt.figure(run),
        "rank_map": rank_map.figure(run),
    }
