"""Keeps a sweep's folder: a Hydra callback, of `hydra.callbacks` in `configs/train.yaml`."""

from __future__ import annotations

import atexit
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from project.sweep.jobs import Job, jobs, write_sweep


class SweepFolder(Callback):
    """`sweep.csv` and `sweep.json` after every job, and what the sweep came to at its end, in `report.html` too.

    Hydra tells its callbacks of the end only where no job has failed; it is told of the other ends, Ctrl-C among them,
    by the interpreter's.
    """

    def __init__(self, table: bool = True) -> None:
        self.table = table

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.sweep_folder = Path(config.hydra.sweep.dir).absolute()
        self.started = time.time()
        atexit.register(self.conclude_if_begun)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            self.sweep_folder = Path(config.hydra.sweep.dir).absolute()
            self.write()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Raises `SystemExit` where a sweeper has put up with failures."""
        if any(job.status in ("failed", "interrupted") for job in self.conclude()):
            raise SystemExit(1)

    def write(self) -> list[Job]:
        found = jobs(self.sweep_folder)
        write_sweep(self.sweep_folder, found)
        return found

    def conclude_if_begun(self) -> None:
        if any(job.begun >= self.started for job in jobs(self.sweep_folder)):  # or another callback has refused
            self.conclude()

    def conclude(self) -> list[Job]:
        atexit.unregister(self.conclude_if_begun)
        from project.report.sweep_page import write_sweep_page  # not before any run starts: it imports plotly

        found = self.write()
        write_sweep_page(self.sweep_folder)
        if self.table:
            self.show(found)
        return found

    def show(self, found: list[Job]) -> None:
        from rich.console import Console

        from project.sweep.table import best, sweep_table

        console = Console()
        console.print(sweep_table(found))
        for line in best(found):
            console.print(line, highlight=False)
        unfinished = [job for job in found if job.status != "completed"]
        for job in unfinished:
            reason = f": {job.error}" if job.error else ""
            console.print(f"job {job.name} {job.status}{reason}", markup=False, highlight=False)
        count = f"{len(found) - len(unfinished)} of {len(found)} jobs completed"
        again = "; resume=auto with this hydra.sweep.dir runs the others again" if unfinished else ""
        console.print(f"{count}{again}\nsweep folder: {self.sweep_folder}", soft_wrap=True, highlight=False)
