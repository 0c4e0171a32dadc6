"""The Hydra callback that keeps a sweep's folder: `hydra.callbacks` in `configs/train.yaml`."""

import atexit
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from project.command_line.sweep_size import number_of_jobs
from project.sweep.jobs import Job, begun_since, jobs, write_sweep


class SweepFolder(Callback):
    """Writes `sweep.csv` and `sweep.json` after every job, and at the end of the sweep `report.html` and, if `table`, a
    table on the terminal.

    Hydra calls `on_multirun_end` only where no job has failed; at any other end, Ctrl-C among them, the interpreter's
    exit concludes the sweep.
    """

    def __init__(self, table: bool = True) -> None:
        self.table = table
        self.config: DictConfig | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.config = config  # to which callbacks after this one may add
        self.sweep_folder = Path(config.hydra.sweep.dir).absolute()
        self.started = time.time()
        atexit.register(self.conclude_if_begun)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            self.sweep_folder = Path(config.hydra.sweep.dir).absolute()
            found = self.write()
            trials = OmegaConf.select(config, "hydra.sweeper.n_trials")
            if trials and len(found) >= trials and not any(job.status == "completed" for job in found):
                # Optuna would choose the best of none, with a traceback. The interpreter's exit concludes the sweep.
                print("No job was completed, so that none is the best.", file=sys.stderr)
                raise SystemExit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """
        Raises:
            SystemExit: 1 where a sweeper has gone on after failures.
        """
        if any(job.status in ("failed", "interrupted") for job in self.conclude()):
            raise SystemExit(1)

    @property
    def number(self) -> int | None:
        """The number of the sweep's jobs; None in a process that a launcher has put a job into."""
        return number_of_jobs(self.config) if self.config else None

    def write(self) -> list[Job]:
        found = jobs(self.sweep_folder)
        write_sweep(self.sweep_folder, found, self.number)
        return found

    def conclude_if_begun(self) -> None:
        if begun_since(self.sweep_folder, self.started):  # no: a callback refused
            self.conclude()

    def conclude(self) -> list[Job]:
        atexit.unregister(self.conclude_if_begun)
        from project.report.sweep_page import write_sweep_page  # not before any run starts: it imports plotly

        found = self.write()
        write_sweep_page(self.sweep_folder)
        if self.table:
            from project.sweep.table import print_sweep

            print_sweep(found, self.sweep_folder, self.number)
        return found
