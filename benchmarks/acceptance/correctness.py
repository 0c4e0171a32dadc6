"""Stage A: does the project compute on GPUs what it computes elsewhere, and go on from its checkpoints."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.acceptance.bench import ROOT, Bench, Failed, environment, logged, told
from benchmarks.acceptance.stage import Found, Stage, Task
from project.planner.search.space import overrides
from project.spec.layout import ParallelLayout
from project.spec.schedules.table import SCHEDULES

GOES_ON_TO = 1e-2
"""Largest relative difference of a loss after resuming: backward kernels add up in no fixed order."""
LAYOUT_AGREES_TO = 1e-4
"""The same of another layout in fp32, after some steps."""


def forks(bench: Bench) -> Found:
    """Ranks are forked, which no CUDA context survives: counting GPUs must not have made one."""
    said = bench.command("-m", "benchmarks.acceptance.forked", bench.accelerator)
    yield "a forked rank uses its GPU", said.strip().splitlines()[-1]


def tests(bench: Bench) -> Found:
    """The parity matrix on the GPU: fp32 and fp64 against the fp64 oracle, bf16 near it."""
    asked = ["-m", "pytest", "-m", "gpu", "tests/gpu", f"--parity-cases={bench.size.cases}", "-p", "no:cacheprovider"]
    nothing = 5 if bench.accelerator == "cpu" else 0  # pytest's status where all were skipped
    said = bench.command(*asked, "-x", statuses=(0, nothing))
    yield "pytest -m gpu", said.strip().splitlines()[-1].strip("= ")


def falls(losses: list[float]) -> str:
    if not losses or not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
        raise Failed(f"losses {losses}")
    return f"loss {losses[0]:.4f} to {losses[-1]:.4f} in {len(losses)} steps"


def documented(bench: Bench) -> Found:
    """The document's model with validation and checkpoints; resumed, it goes on as the run that was not interrupted."""
    steps = bench.size.trained
    half = steps // 2
    options = [
        *bench.size.model, "trainer.precision=bf16-mixed", f"trainer.max_steps={steps}", "trainer.limit_val_batches=2",
        f"trainer.val_check_interval={half}", f"callbacks.checkpoint.every_n_train_steps={half}",
        "callbacks.checkpoint.save_top_k=-1",
    ]  # fmt: skip
    whole = bench.train(*options, layout=bench.layout)
    yield f"the document's model, bf16-mixed, {bench.layout}", falls(logged(whole, "train/loss"))
    yield "its validation loss", f"{logged(whole, 'val/loss')[-1]:.4f}"
    resumed = bench.train(*options, f"resume={checkpoint(whole, half)}", layout=bench.layout)
    yield f"resumed after {half} steps", goes_on(logged(whole, "train/loss")[half:], logged(resumed, "train/loss"))


def checkpoint(run: Path, step: int) -> Path:
    found = [path for path in (run / "checkpoints").iterdir() if path.name.startswith(f"step={step}.")]
    if len(found) != 1:
        raise Failed(f"{len(found)} checkpoints of step {step}")
    return found[0]


def goes_on(whole: list[float], resumed: list[float], to: float = GOES_ON_TO) -> str:
    if len(whole) != len(resumed):
        raise Failed(f"{len(resumed)} steps, {len(whole)} in the run that was not interrupted")
    differences = [abs(one - other) / abs(one) for one, other in zip(whole, resumed, strict=True)]
    worst = max(differences)
    if not all(difference <= to for difference in differences):  # nan is not
        raise Failed(f"losses differ by {worst:.1e}, allowed {to:g}")
    return f"losses differ by at most {worst:.1e}"


def precisions(bench: Bench) -> Found:
    for precision in ("16-mixed", "32-true"):
        run = bench.train(
            *bench.size.small, f"trainer.precision={precision}", f"trainer.max_steps={bench.size.trained}",
            "trainer.limit_val_batches=0", "callbacks.checkpoint=null",
        )  # fmt: skip
        yield f"the small model, {precision}", falls(logged(run, "train/loss"))


def layouts(bench: Bench) -> Found:
    """Several GPUs, one a rank, over NCCL itself: every schedule, replicas whole and in shards, experts over ranks."""
    options = [
        *bench.size.small, "model.num_layers=4", "trainer.precision=32-true", "trainer.max_steps=3",
        "trainer.limit_val_batches=0", "callbacks.checkpoint=null",
    ]  # fmt: skip
    alone = logged(bench.train(*options, layout=ParallelLayout(microbatches=4)), "train/loss")
    for layout in of_two():
        run = bench.train(*options, layout=layout)
        yield str(layout), goes_on(alone, logged(run, "train/loss"), LAYOUT_AGREES_TO)


def of_two() -> list[ParallelLayout]:
    pipelines = [
        ParallelLayout(pp=2, schedule=name, virtual_stages=schedule.stages_a_rank or 1, microbatches=4)
        if schedule.with_one_stage is None
        else ParallelLayout(pp=2, schedule=name, virtual_stages=2, microbatches=4)
        for name, schedule in SCHEDULES.items()
    ]
    replicas = [ParallelLayout(dp=2, dp_mode=mode, microbatches=2) for mode in ("replicate", "shard")]
    return [ParallelLayout(tp=2, ep=2, microbatches=4), *pipelines, *replicas]


def watchdog(bench: Bench) -> Found:
    """A rank that stops is named, with what it did last, when the others have waited for it."""
    layout = ParallelLayout(tp=2, ep=2, microbatches=2)
    run = bench.folder / "stopped"
    options = [*bench.size.small, "trainer.max_steps=100000", "trainer.limit_val_batches=0", "watchdog.timeout_s=15"]
    ours = ["project/train.py", "logger=csv", *overrides(layout).split(), f"trainer.accelerator={bench.accelerator}"]
    command = [sys.executable, *ours, *options, "callbacks.checkpoint=null", f"hydra.run.dir={run}"]
    with (bench.folder / "stopped.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT)
    try:
        until(bench, lambda: (run / "metrics.csv").exists() and len(logged(run, "train/loss")) > 2, "the third step")
        ranks = psutil.Process(process.pid).children()
        ranks[-1].send_signal(signal.SIGSTOP)
        process.wait(timeout=max(bench.left_s, 1))
    except subprocess.TimeoutExpired:
        raise Failed("nobody noticed") from None
    finally:
        end(process)
    said = told((bench.folder / "stopped.log").read_text())
    if "did not arrive" not in said:
        raise Failed(said)
    yield "a stopped rank is named", said


def until(bench: Bench, there: Callable[[], bool], what: str) -> None:
    while not there():
        if bench.left_s < 1:
            raise Failed(f"no time was left to wait for {what}")
        time.sleep(0.2)


def end(process: subprocess.Popen) -> None:
    """Ends the run and its ranks, a stopped one among them."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
    process.wait()


CORRECTNESS = Stage(
    "A",
    "correctness",
    [
        Task("a forked rank uses its GPU", 10, forks),
        Task("the document's model", 40, documented),
        Task("the small model in other precisions", 30, precisions),
        Task("layouts over NCCL", 60, layouts, gpus=2),
        Task("a stopped rank is named", 60, watchdog, gpus=2),
        Task("pytest -m gpu", 60, tests),
    ],
)
