"""Stage C: where the time of a step goes on a GPU."""

import gzip
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.acceptance.bench import Bench, Failed, logged
from benchmarks.acceptance.stage import Found, Stage, Task
from project.spec.layout import ParallelLayout

LAYOUT = ParallelLayout(microbatches=2)


def profiled(bench: Bench) -> Found:
    """The kernels of a step, and the fraction of it in which the device is busy."""
    run = bench.train(*bench.size.model, "debug=profile", "trainer.precision=bf16-mixed", layout=LAYOUT)
    traces = sorted((run / "profile").glob("*.json*"))
    if not traces:
        raise Failed("no trace in the run's profile/")
    events = events_of(traces[0])
    yield "one step, profiled", seen(events)
    for name, count in launches(events):
        yield f"launches of {name}", str(count)


def events_of(trace: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(trace.read_bytes()) if trace.suffix == ".gz" else trace.read_bytes()
    return [event for event in json.loads(text)["traceEvents"] if event.get("ph") == "X"]


DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


def seen(events: list[dict[str, Any]]) -> str:
    """On a machine without a GPU the operators are told, of which there are no kernels."""
    on_device = [event for event in events if event.get("cat") in DEVICE]
    step = max((event["dur"] for event in events if "ProfilerStep" in event["name"]), default=0)
    if not on_device:
        return f"no kernel; {sum(event.get('cat') == 'cpu_op' for event in events)} operators"
    busy = covered((event["ts"], event["ts"] + event["dur"]) for event in on_device)
    kernels = sum(event["cat"] == "kernel" for event in on_device)
    whole = step or max(event["ts"] + event["dur"] for event in on_device) - min(event["ts"] for event in on_device)
    return f"{kernels} kernels, device busy {busy / whole:.0%} of {whole / 1e3:.1f} ms"


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of their union."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def launches(events: list[dict[str, Any]], most: int = 5) -> list[tuple[str, int]]:
    """The kernels that take longest, all launches together, and their numbers."""
    time: dict[str, float] = {}
    number: dict[str, int] = {}
    for event in events:
        if event.get("cat") == "kernel":
            name = event["name"].split("<")[0].split("(")[0][:60]
            time[name] = time.get(name, 0) + event["dur"]
            number[name] = number.get(name, 0) + 1
    return [(name, number[name]) for name in sorted(time, key=lambda name: -time[name])[:most]]


def waits(bench: Bench) -> Found:
    """Where the host waits for the device, by torch's own warnings."""
    callback = (
        "+callbacks.waits={_target_: benchmarks.acceptance.sync_warnings.SyncWarnings, "
        "run_folder: '${hydra:runtime.output_dir}'}"
    )
    run = bench.train(
        *bench.size.model, "trainer.precision=bf16-mixed", "trainer.max_steps=4", "trainer.limit_val_batches=0",
        "callbacks.checkpoint=null", "callbacks.communication=null", callback, layout=LAYOUT,
    )  # fmt: skip
    counts = json.loads((run / "waits.json").read_text())
    yield "host waits a step", f"{sum(counts.values()):g}"
    for where, count in list(counts.items())[:12]:
        yield f"waits at {where}", f"{count:g}"


def memory(bench: Bench) -> Found:
    """The allocator's history, for https://pytorch.org/memory_viz."""
    run = bench.train(*bench.size.model, "debug=memory", "trainer.precision=bf16-mixed", layout=LAYOUT)
    files = sorted((run / "memory").glob("*.pickle")) if (run / "memory").exists() else []
    if not files and bench.accelerator == "cuda":
        raise Failed("no snapshot in the run's memory/")
    yield (
        "memory snapshot",
        f"{files[0].name}, {files[0].stat().st_size / 2**20:.1f} MiB" if files else "CUDA's allocator alone",
    )


def stall(bench: Bench) -> Found:
    """What a checkpoint costs: with one every few steps, and with none."""
    every = max(2, bench.size.steps // 6)
    found = {}
    for name, saving in (("none", "=null"), ("some", f".every_n_train_steps={every}")):
        run = bench.train(
            *bench.size.model, "trainer.precision=bf16-mixed", f"trainer.max_steps={bench.size.steps}",
            "trainer.limit_val_batches=0", f"callbacks.checkpoint{saving}", layout=LAYOUT,
        )  # fmt: skip
        found[name] = logged(run, "train/step_time_s")[bench.size.warm :]
    means = {name: statistics.mean(seconds) for name, seconds in found.items()}
    yield (
        f"a checkpoint every {every} steps",
        f"mean step {means['some'] * 1e3:.1f} ms, {means['none'] * 1e3:.1f} without, ratio "
        f"{means['some'] / means['none']:.2f}; longest step {max(found['some']) * 1e3:.1f} ms",
    )


DIAGNOSIS = Stage(
    "C",
    "diagnosis",
    [
        Task("profiler", 40, profiled),
        Task("host waits", 30, waits),
        Task("memory snapshot", 30, memory),
        Task("checkpoint stall", 60, stall),
    ],
)
