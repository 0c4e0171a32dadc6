"""Where metrics go. `metrics.csv` is always written; Weights & Biases as asked."""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from project.metrics.metrics_file import MetricsFile


def csv_only(run_folder: str) -> list[Logger]:
    return [MetricsCsv(run_folder)]


def csv_and_wandb(
    run_folder: str, project: str, name: str, group: str | None, tags: Sequence[str], offline: bool | None = None
) -> list[Logger]:
    """`offline` None means: unless there is a key. The file's logger is the first: Lightning puts checkpoints where the
    first one is."""
    if offline is None:
        offline = not os.environ.get("WANDB_API_KEY")
    run = RunFolderWandb(
        run_folder, project=project, name=name, group=group, tags=[str(tag) for tag in tags], offline=offline
    )
    return [MetricsCsv(run_folder), run]


class MetricsCsv(Logger):
    def __init__(self, run_folder: str) -> None:
        super().__init__()
        self._folder = run_folder
        self._file = MetricsFile(Path(run_folder) / "metrics.csv")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._file.write(step or 0, metrics)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder has `config.yaml`."""

    @property
    def save_dir(self) -> str:
        return self._folder

    # Empty, so that `<save_dir>/<name>/<version>/checkpoints` is the run folder's `checkpoints`.
    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""


class RunFolderWandb(WandbLogger):
    """Keeps its files in the run folder and says nothing. The run begins on rank 0, after ranks were forked, and is
    finished when Lightning finalizes its loggers: a forked rank leaves without what wandb registers for the exit."""

    def __init__(self, run_folder: str, *, offline: bool, **init: Any) -> None:
        # A dict, so that wandb is not imported before the fork.
        settings = {"console": "off", "silent": True, "disable_git": True, "disable_code": True}
        super().__init__(save_dir=run_folder, offline=offline, settings=settings, **init)
        del self._wandb_init["anonymous"]  # wandb warns of it, whatever its value
        self._config_file = Path(run_folder) / "config.yaml"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None and self._config_file.exists():
            self._wandb_init["config"] = OmegaConf.to_container(OmegaConf.load(self._config_file), resolve=True)
        return super().experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._wandb_init["id"] = self._experiment.id
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None
