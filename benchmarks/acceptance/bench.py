"""Where an acceptance run takes place, and how its tasks run programs: each in a process of its own, within the time
that its stage has left."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from project.engine.host import let_threads_sleep
from project.planner.search.space import overrides
from project.spec.layout import ParallelLayout

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = (
    ParallelLayout(),
    ParallelLayout(tp=2, ep=2),
    ParallelLayout(pp=2, tp=2, ep=2, microbatches=4),
    ParallelLayout(pp=2, tp=4, ep=4, microbatches=4),
    ParallelLayout(pp=4, tp=4, ep=4, microbatches=4),
)


class Size(NamedTuple):
    """`model` and `small` are overrides of `project/train.py`, of the document's model and of the small one."""

    name: str
    model: list[str]
    small: list[str]
    steps: int  # of a timed run
    warm: int  # of them left out
    trained: int  # steps of a run whose loss is looked at
    cases: int  # of the parity matrix
    tokens: int  # of a batch


FULL = Size("full", ["model=moe_8x4", "data=synthetic"], ["model=small", "data=synthetic"], 30, 10, 20, 12, 2048)
SHORT = ["model=tiny", "model.num_layers=4", "model.vocab_size=128"]
SHORT += ["data=synthetic", "data.num_tokens=20000", "data.seq_len=32"]
TINY = Size("tiny", SHORT, SHORT, 4, 1, 4, 1, 256)


class Failed(Exception):
    """A program ended as it should not, or a number is not what it should be; the message is one line."""


def environment() -> dict[str, str]:
    """This process's, in which this project is found first, and then what was found before."""
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *([before] if before else [])])}


@dataclass
class Bench:
    """`gpus` is the number of devices, or of processes on a CPU. Runs leave their folders in `folder`."""

    folder: Path
    accelerator: str
    gpus: int
    size: Size
    deadline: float = field(default_factory=lambda: time.monotonic() + 570)
    runs: int = 0

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def layout(self) -> ParallelLayout:
        """The largest of `LAYOUTS` that there are devices for."""
        return [layout for layout in LAYOUTS if layout.world_size <= self.gpus][-1]

    def command(self, *command: str, statuses: tuple[int, ...] = (0,)) -> str:
        """Returns what a program of this project's Python says. Raises `Failed` for another status, or out of time."""
        environ = environment()
        let_threads_sleep(environ)
        try:
            done = subprocess.run(
                [sys.executable, *command], cwd=ROOT, env=environ, text=True, timeout=max(self.left_s, 1),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed(f"not done when the stage's time was over: {' '.join(command[:3])}") from None
        (self.folder / f"{time.time_ns()}.log").write_text(f"{command}\n{done.stdout}")
        if done.returncode not in statuses:
            raise Failed(f"status {done.returncode}: {told(done.stdout)}")
        return done.stdout

    def train(self, *options: str, layout: ParallelLayout | None = None, statuses: tuple[int, ...] = (0,)) -> Path:
        """Trains, and returns the run folder."""
        self.runs += 1
        run = self.folder / f"run{self.runs}"
        places = [*overrides(layout or ParallelLayout()).split(), f"trainer.accelerator={self.accelerator}"]
        ours = ["project/train.py", "logger=csv", *places, *options, f"hydra.run.dir={run}"]
        self.command(*ours, statuses=statuses)
        return run


def told(output: str) -> str:
    """The line of an output that says what went wrong, as far as one can tell."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"Error|failed|fault", line)]
    return (wrong or lines or ["nothing said"])[-1][:160]


def logged(run: Path, name: str) -> list[float]:
    """A scalar of a run's metrics, step by step."""
    with (run / "metrics.csv").open() as file:
        return [float(value) for row in csv.DictReader(file) if (value := row.get(name))]


def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))
