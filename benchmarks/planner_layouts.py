"""Predicted against measured: seconds of a step of model=small under layouts of 1 to 16 ranks on this machine.

    python -m benchmarks.planner_layouts --calibrate

Calibrates (or reads a cluster file with --cluster), has `project/train.py` train each layout, round by round, and
compares the medians. Nothing that is measured here flows back into the prediction. The machine is to be quiet.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median

from project.calibration import processors
from project.calibration.measured import heading
from project.calibration.overhead import Case, rank_seconds
from project.model.config import ModelConfig
from project.parallel.layout import ParallelLayout
from project.planner.cluster import Cluster
from project.planner.cluster_file import CLUSTERS, load_cluster, write_cluster
from project.planner.host_time import after_the_pipeline, alone
from project.planner.implementation import ours
from project.planner.search import overrides
from project.planner.step_time import step_time
from project.planner.workload import Workload

ROOT = Path(__file__).resolve().parent.parent
SMALL = ModelConfig(d_model=256, num_kv_heads=4, head_dim=32, d_ff=512, vocab_size=4096)
BATCH, SEQ_LEN, STEPS = 8, 256, 7

LAYOUTS = {
    "1": ParallelLayout(microbatches=4),
    "pp2": ParallelLayout(pp=2, microbatches=4),
    "tp2 ep2": ParallelLayout(tp=2, ep=2, microbatches=4),
    "pp4": ParallelLayout(pp=4, microbatches=4),
    "tp4 ep4": ParallelLayout(tp=4, ep=4, microbatches=4),
    "pp2 tp2 ep2": ParallelLayout(pp=2, tp=2, ep=2, microbatches=4),
    "pp4 tp2 ep2": ParallelLayout(pp=4, tp=2, ep=2, microbatches=4),
    "pp4 tp4 ep4": ParallelLayout(pp=4, tp=4, ep=4, microbatches=4),
    "pp4 tp4 ep4, 8 microbatches": ParallelLayout(pp=4, tp=4, ep=4, microbatches=8),
}


def measured(layout: ParallelLayout, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "project/train.py"), "model=small", "data=synthetic", "logger=csv"]
        options = [
            f"trainer.max_steps={steps}",
            "trainer.limit_val_batches=0",
            "trainer.accelerator=cpu",
            "callbacks.checkpoint=null",
            f"hydra.run.dir={folder}",
        ]
        subprocess.run([*command, *overrides(layout).split(), *options], check=True, stdout=subprocess.DEVNULL)
        return float(json.loads((Path(folder) / "summary.json").read_text())["step_time_s"])


def core_seconds(layout: ParallelLayout) -> float:
    """Of all ranks together, in a step: what the plan is made of, and what a busy machine changes least."""
    model = replace(SMALL, max_seq_len=SEQ_LEN)
    return rank_seconds(Case(model.num_layers, layout, model)) * layout.world_size


def work() -> Workload:
    return Workload(SMALL, BATCH, SEQ_LEN, ours("32-true"), "fp32")


def predicted(layout: ParallelLayout, cluster: Cluster) -> float:
    return step_time(work(), layout, cluster).total


def predicted_core_seconds(layout: ParallelLayout, cluster: Cluster) -> float:
    """One thread a rank, as they are measured."""
    assert cluster.host is not None
    one_thread = replace(cluster, host=replace(cluster.host, cores=1))
    stages = sum(stage.total for stage in alone(work(), layout, one_thread))
    after = sum(after_the_pipeline(work(), layout, one_thread))  # of all ranks, on one core
    return layout.microbatches * stages * layout.dp * layout.tp + after


def spearman(one: Sequence[float], two: Sequence[float]) -> float:
    """Correlation of the ranks; without ties."""

    def ranks(values: Sequence[float]) -> list[int]:
        return [sorted(values).index(value) for value in values]

    squares = sum((a - b) ** 2 for a, b in zip(ranks(one), ranks(two), strict=True))
    return 1 - 6 * squares / (len(one) * (len(one) ** 2 - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", action="store_true", help="measure the machine first, into cpu_here.yaml")
    parser.add_argument("--cluster", default="cpu_here")
    parser.add_argument("--core-seconds", action="store_true", help="of all ranks together, instead of the clock's")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    if arguments.calibrate:
        cluster = processors.calibrate(arguments.cluster, lambda what: print(f"  {what}", flush=True))
        write_cluster(cluster, CLUSTERS / f"{arguments.cluster}.yaml", heading())
    cluster = load_cluster(arguments.cluster)
    if arguments.core_seconds:
        plan, measure, unit = predicted_core_seconds, core_seconds, "core s"
    else:
        plan, measure, unit = predicted, partial(measured, steps=arguments.steps), "s"
    plans = {name: plan(layout, cluster) for name, layout in LAYOUTS.items()}
    seen: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    for _ in range(arguments.rounds):
        for name, layout in LAYOUTS.items():
            seen[name].append(measure(layout))
            load = os.getloadavg()[0]
            print(
                f"{name}: planned {plans[name]:.3f}, measured {seen[name][-1]:.3f} {unit}, load {load:.0f}", flush=True
            )
    real = {name: median(values) for name, values in seen.items()}
    errors = {name: plans[name] / real[name] - 1 for name in LAYOUTS}
    print(f"\n| layout | ranks | planned {unit} | measured {unit} | error |\n|---|---|---|---|---|")
    for name, layout in LAYOUTS.items():
        print(f"| {name} | {layout.world_size} | {plans[name]:.2f} | {real[name]:.2f} | {errors[name]:+.0%} |")
    order = spearman(list(plans.values()), list(real.values()))
    apart = mean(abs(error) for error in errors.values())
    print(f"\nSpearman {order:.2f}, mean error {apart:.0%}")


if __name__ == "__main__":
    main()
