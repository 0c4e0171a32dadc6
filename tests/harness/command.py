"""The project's commands run as a user runs them, in a process of their own, and the run folder that they leave."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.harness.paths import ROOT

TRAIN = [sys.executable, str(ROOT / "project/train.py")]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]

# A tiny model on four ranks; jobs of one rank that train for a moment.
RANKS_4 = [
    *("model=tiny", "data=synthetic", "data.seq_len=32", "trainer.limit_val_batches=1", "trainer.accelerator=cpu"),
    *("+experiment=tp2_ep2_pp2", "parallel.microbatches=2"),
]
MOMENT = [
    *("model=tiny", "model.num_layers=1", "data=synthetic", "data.seq_len=16", "data.num_tokens=20000"),
    *("trainer.limit_val_batches=1", "trainer.accelerator=cpu"),
]
# On one core, so that a rank has one thread and threads do not wait for each other on a busy machine.
ONE_CORE = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if hasattr(os, "sched_getaffinity") else []


def environment(**more: str) -> dict[str, str]:
    """This process's environment without a W&B key, and with one thread for each rank."""
    kept = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more


def run(
    *arguments: str,
    command: Iterable[str] = TRAIN,
    status: int | None = 0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 240.0,
) -> subprocess.CompletedProcess[str]:
    """Runs `command` with `arguments` to its end; its output is captured as text.

    Raises:
        AssertionError: with the output, if the exit status is not `status`. None allows every status.
    """
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=cwd,
        env=env or environment(),
    )
    assert status in (None, done.returncode), done.stdout + done.stderr
    return done


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def losses(folder: Path) -> list[str]:
    """The training loss of every step in `metrics.csv`, as written there."""
    with (folder / "metrics.csv").open() as file:
        return [row["train/loss"] for row in csv.DictReader(file)]


def wait_for(path: Path) -> None:
    """Returns once `path` exists, at the latest after a minute."""
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
