"""Stage B: seconds of a training step of the document's model, ours and others', and what the planner had said."""

import re
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.acceptance.bench import Bench, Failed, logged, summary
from benchmarks.acceptance.stage import Found, Stage, Task
from project.spec.layout import ParallelLayout


def figures(seconds: list[float], bench: Bench) -> str:
    """The median of the steps that are not left out, its spread, and tokens a second."""
    kept = seconds[bench.size.warm :]
    if not kept:
        raise Failed(f"{len(seconds)} steps, of which {bench.size.warm} are left out")
    middle = statistics.median(kept)
    low, *_, high = statistics.quantiles(kept, n=10, method="inclusive") if len(kept) > 1 else (middle, middle)
    tokens = bench.size.tokens / middle
    return f"{middle * 1e3:.1f} ms a step ({low * 1e3:.1f} to {high * 1e3:.1f}), {tokens:,.0f} tokens/s"


def timed(bench: Bench, layout: ParallelLayout, *options: str) -> Path:
    return bench.train(
        *bench.size.model, "trainer.precision=bf16-mixed", f"trainer.max_steps={bench.size.steps}",
        "trainer.limit_val_batches=0", "callbacks.checkpoint=null", *options, layout=layout,
    )  # fmt: skip


def ours(bench: Bench, microbatches: int) -> Found:
    run = timed(bench, ParallelLayout(microbatches=microbatches))
    seen = summary(run)
    mfu = "" if seen.get("mfu") is None else f", MFU {seen['mfu']:.1%}"
    peak = max(seen["peak_memory_bytes_per_rank"]) / 2**30
    yield (
        f"ours, one rank, {microbatches} microbatches",
        f"{figures(logged(run, 'train/step_time_s'), bench)}{mfu}, {peak:.1f} GiB",
    )


def ours_on_all(bench: Bench) -> Found:
    run = timed(bench, bench.layout)
    yield f"ours, {bench.layout}", figures(logged(run, "train/step_time_s"), bench)


def another(bench: Bench, which: str, compiled: bool) -> Found:
    """The bare model, or transformers', in one process without microbatches."""
    how = "compiled" if compiled else "eager"
    options = [which, bench.accelerator, how, str(bench.size.steps), bench.size.name]
    said = bench.command("-m", "benchmarks.acceptance.contender", *options)
    seconds = [float(line.split()[1]) for line in said.splitlines() if line.startswith("step ")]
    peak = re.search(r"^peak (.*)$", said, re.MULTILINE)
    yield f"{which}, {how}", f"{figures(seconds, bench)}, {peak[1] if peak else '?'} GiB"


def planned(bench: Bench) -> Found:
    """Measures the machine, trains with its numbers, and compares plan and run. Processors are not measured:
    their numbers are those of the host's calibration, or assumed."""
    cluster = "cpu_here"
    if bench.accelerator == "cuda":
        bench.command("project/plan.py", "calibrate=true", f"hydra.run.dir={bench.folder / 'calibrated'}")
        cluster = "gpu_here"
    run = timed(bench, ParallelLayout(microbatches=2), f"cluster={cluster}")
    said = bench.command("project/plan.py", f"compare={run}", f"hydra.run.dir={bench.folder / 'compared'}")
    for line in said.splitlines():
        cells = [cell.strip() for cell in re.split("[│|]", line) if cell.strip()]
        if len(cells) > 2 and re.search("time|tokens|memory|MFU", cells[0]):
            yield f"planned and measured: {cells[0]}", ", ".join(cells[1:])


def task(name: str, seconds: float, find: Callable[..., Found], *args: object) -> Task:
    return Task(name, seconds, partial(with_bench, find, args))


def with_bench(find: Callable[..., Found], args: tuple, bench: Bench) -> Found:
    return find(bench, *args)


SPEED = Stage(
    "B",
    "speed",
    [
        *(task(f"ours, {microbatches} microbatches", 20, ours, microbatches) for microbatches in (1, 2, 4)),
        task("mixtral, eager", 20, another, "mixtral", False),
        task("bare, eager", 20, another, "bare", False),
        task("ours again, 1 microbatch", 20, ours, 1),
        task("bare, compiled", 60, another, "bare", True),
        task("mixtral, compiled", 60, another, "mixtral", True),
        Task("plan and run", 60, planned),
        Task("ours on all GPUs", 30, ours_on_all, gpus=2),
    ],
)
