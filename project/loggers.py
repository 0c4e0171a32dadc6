"""Loggers of a run: `metrics.csv` always, and Weights & Biases where the configuration asks for it."""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from project.compat.lightning_internals import OpenWandbLogger
from project.observe.metrics_file import MetricsFile
from project.run_folder import read_summary
from project.spec.figures import FIGURES, figure
from project.spec.untrusted import read_yaml

RUN_ID = "wandb/run_id"
LONGEST_TAG = 64  # characters, W&B's limit
FLUSHED_AFTER_S = 1.0  # the seconds of logs that a killed rank may lose; wandb's default is 15
REACHED_WITHIN_S = 20.0  # the seconds for which the start waits for W&B's server; wandb's default is 90
STEP = "trainer/global_step"  # Lightning's name for the x axis
SUMMARIES = {
    "train/loss": "min,last",
    "val/loss": "min,last",
    "train/step_time_s": "mean,min",
    "train/tokens_per_second": "mean,max",
    "train/mfu": "mean,max",
    "train/grad_norm": "max,last",
    "train/expert_imbalance": "mean,last",
    "memory/peak_bytes_largest_rank": "max",
}
"""Aggregates of a scalar that W&B shows for the run as a whole; for others it shows the last value."""


def csv_only(run_folder: str) -> list[Logger]:
    return [MetricsCsv(run_folder)]


def csv_and_wandb(
    run_folder: str,
    project: str,
    name: str,
    group: str | None,
    tags: Sequence[str],
    offline: bool | None = None,
    artifacts: bool = False,
) -> list[Logger]:
    """Both loggers. `offline` None means offline unless `WANDB_API_KEY` is set; with `artifacts`, W&B keeps the plan
    and the checkpoints too. The file's logger comes first, as Lightning puts checkpoints where the first one is."""
    if offline is None:
        offline = not os.environ.get("WANDB_API_KEY")
    run = RunFolderWandb(
        run_folder,
        artifacts,
        project=str(project),
        name=str(name),
        group=group,
        tags=list(dict.fromkeys(str(tag)[:LONGEST_TAG] for tag in tags if tag)),
        offline=offline,
    )
    return [MetricsCsv(run_folder), run]


class MetricsCsv(Logger):
    """Logger to `metrics.csv` in the run folder."""

    def __init__(self, run_folder: str) -> None:
        super().__init__()
        self._folder = run_folder
        self._file = MetricsFile(Path(run_folder) / "metrics.csv")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._file.write(step or 0, metrics)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run folder has `config.yaml`."""

    @property
    def save_dir(self) -> str:
        return self._folder

    # Name and version are empty, so that `<save_dir>/<name>/<version>/checkpoints` is the run folder's `checkpoints`.
    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""


class RunFolderWandb(OpenWandbLogger):
    """Logger to W&B that keeps its files in the run folder and prints nothing. The run begins on rank 0, after ranks
    were forked, and is finished when Lightning finalizes its loggers: a forked rank skips the exit handler of wandb.

    The run's id is kept in `wandb/run_id` of the run folder. The summary of a finished run has the figures of
    `summary.json` under `result/`, and the planned ones under `planned/`.
    """

    def __init__(self, run_folder: str, artifacts: bool = False, *, offline: bool, **init: Any) -> None:
        # A dict, so that wandb is not imported before the fork.
        settings: dict[str, Any] = {"console": "off", "silent": True, "disable_git": True, "disable_code": True}
        settings["init_timeout"] = REACHED_WITHIN_S
        settings["x_transaction_log_flush_interval"] = FLUSHED_AFTER_S
        super().__init__(save_dir=run_folder, offline=offline, settings=settings, **init)
        del self.init_arguments["anonymous"]  # wandb warns of it, whatever its value
        self.folder, self.artifacts = Path(run_folder), artifacts

    def continue_run_of(self, run_folder: Path) -> None:
        """Makes this run continue the W&B run of `run_folder`, if it has one. To be called before it begins."""
        known = run_folder / RUN_ID
        if known.exists():
            self.go_on_with(known.read_text(encoding="utf-8").strip())

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        begins = self.begun is None
        if begins:
            config = self.folder / "config.yaml"
            if config.exists():
                self.init_arguments["config"] = read_yaml(config)
        run = self.begin() if begins else super().experiment
        if begins and isinstance(run.id, str):
            (self.folder / RUN_ID).write_text(f"{run.id}\n", encoding="utf-8")
            for name, summary in SUMMARIES.items():
                run.define_metric(name, step_metric=STEP, step_sync=True, summary=summary)
        return run

    def begin(self) -> Any:
        """Begins the run; offline, with a warning, where W&B cannot be reached or refuses it. Nothing that only shows
        ends a training run."""
        from wandb.errors import Error

        try:
            return super().experiment
        except Error as error:
            rank_zero_warn(
                f"W&B cannot be used ({str(error).splitlines()[0]}): this run is logged offline, "
                f"and `wandb sync {self.folder / 'wandb'}/offline-run-*` sends it"
            )
            self.init_arguments["mode"] = "offline"
            return super().experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        run = self.let_go()
        if run is None:
            return
        summary = read_summary(self.folder) or {}
        for prefix, figures in (("result", summary), ("planned", summary.get("planned") or {})):
            found = {f"{prefix}/{name}": figure(figures, name) for name in FIGURES}
            run.summary.update({name: value for name, value in found.items() if value is not None})
        if self.artifacts and status == "success":
            self.keep_artifacts(run)
        run.finish(exit_code=0 if status == "success" else 1)

    def keep_artifacts(self, run: Any) -> None:
        from wandb import Artifact

        plan, checkpoints = self.folder / "plan.json", sorted(self.folder.glob("checkpoints/[!.]*"))
        if plan.exists():
            artifact = Artifact(f"plan-{run.id}", type="plan")
            artifact.add_file(str(plan))
            run.log_artifact(artifact)
        for checkpoint in checkpoints:
            if checkpoint.is_dir() and not checkpoint.is_symlink():
                artifact = Artifact(f"checkpoint-{run.id}", type="model", metadata={"checkpoint": checkpoint.name})
                for file in checkpoint.rglob("*"):  # add_dir would print on the terminal
                    if file.is_file():
                        artifact.add_file(str(file), name=str(file.relative_to(checkpoint)))
                run.log_artifact(artifact, aliases=["latest", checkpoint.name])
