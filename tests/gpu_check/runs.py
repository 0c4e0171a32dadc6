"""Runs of `project/train.py` on GPUs that are not there, each in a process of its own."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.gpu_check import budget, stubs
from tests.gpu_check.event import Event
from tests.harness.paths import ROOT

GPUS = 8


@dataclass
class Outcome:
    """`seen` has the most that any rank had of each event. `output` ends with the errors of all
    ranks. `losses` are the steps' and the validations'."""

    folder: Path
    status: int
    output: str
    seen: Counter[Event]
    losses: list[float]


class Runs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stubs = folder / "stubs"
        self.stubs.mkdir()
        stubs.build(self.stubs)
        self.count = 0
        self.seen: dict[str, Counter[Event]] = {}

    def new_folder(self) -> Path:
        self.count += 1
        return self.folder / str(self.count)

    def train(self, overrides: list[str], undo: str | None = None) -> Outcome:
        run = self.new_folder()
        reports = run / "reports"
        reports.mkdir(parents=True)
        command = [sys.executable, "-m", "tests.gpu_check.train", str(reports), *(["--undo", undo] if undo else [])]
        environ = stubs.environment(self.stubs, GPUS, os.environ | {"PYTHONPATH": str(ROOT)})
        said = subprocess.run(
            [*command, *overrides, f"hydra.run.dir={run}"], cwd=ROOT, env=environ, text=True, capture_output=True
        )
        ranks = [json.loads(report.read_text()) for report in reports.glob("*.json")]
        seen = budget.most({Event(*event): count for *event, count in rank} for rank in ranks)
        errors = [error.read_text() for error in sorted(reports.glob("*.error"))]
        return Outcome(run, said.returncode, "\n".join([said.stdout, said.stderr, *errors]), seen, losses(run))

    def on_the_host(self, overrides: list[str]) -> list[float]:
        """The losses of the same run without GPUs, of any kind."""
        run = self.new_folder()
        command = [sys.executable, "project/train.py", *overrides, "trainer.accelerator=cpu", f"hydra.run.dir={run}"]
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True)
        return losses(run)


def losses(run: Path) -> list[float]:
    if not (run / "metrics.csv").exists():
        return []
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(value) for row in rows for name in ("train/loss", "val/loss") if (value := row.get(name))]
