"""Predicted against measured: seconds of a step of model=small under layouts of 1 to 16 ranks on this machine.

    python -m benchmarks.planner_layouts --calibrate

Calibrates into benchmarks/clusters/cpu_here.yaml (or reads another file of that folder with --cluster), has
`project/train.py` train each layout, round by round, and compares the medians. Nothing that is measured here flows
back into the prediction. The machine is to be quiet. What was found is written to `planner_layouts.csv`, to be
committed together with the cluster file; --recorded plans anew against what was measured then, and runs nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.planner_record import CALIBRATED, Row, checksum, read, row, table, write
from project.calibration import processors
from project.calibration.load import OtherLoad
from project.calibration.rank_seconds import Case, rank_seconds
from project.calibration.run import heading
from project.planner.cost.host_time import host_seconds_after_the_pipeline, uncontended_durations
from project.planner.cost.step_time import step_time
from project.planner.cost.workload import Workload
from project.planner.machine.cluster import Cluster
from project.planner.machine.cluster_file import load_cluster, write_cluster
from project.planner.search.space import overrides
from project.spec.layer.implementation import ours
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

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
    return rank_seconds(Case(model.num_layers, layout, model)).core * layout.world_size


def work() -> Workload:
    return Workload(SMALL, BATCH, SEQ_LEN, ours("32-true"), "fp32")


def predicted(layout: ParallelLayout, cluster: Cluster) -> float:
    return step_time(work(), layout, cluster).total


def predicted_core_seconds(layout: ParallelLayout, cluster: Cluster) -> float:
    """One thread a rank, as they are measured."""
    assert cluster.host is not None
    one_thread = replace(cluster, host=replace(cluster.host, cores=1))
    stages = sum(stage.total for stage in uncontended_durations(work(), layout, one_thread))
    after = sum(host_seconds_after_the_pipeline(work(), layout, one_thread))  # of all ranks, on one core
    return layout.microbatches * stages * layout.dp * layout.tp + after


def seconds_of(measure: Callable[[ParallelLayout], float], plans: dict[str, float], rounds: int) -> dict[str, float]:
    """The median of all rounds, by name; each is printed as it comes."""
    seen: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    for _ in range(rounds):
        for name, layout in LAYOUTS.items():
            seen[name].append(measure(layout))
            load = os.getloadavg()[0]
            print(f"{name}: planned {plans[name]:.3f}, measured {seen[name][-1]:.3f}, load {load:.0f}", flush=True)
    return {name: median(values) for name, values in seen.items()}


def planned_anew(rows: list[Row], cluster: str) -> list[Row]:
    """What was measured, beside what that cluster's file says today."""
    loaded, sha256 = load_cluster(cluster, CALIBRATED), checksum(cluster)
    plans = (round(predicted(LAYOUTS[row.layout], loaded), 6) for row in rows)
    return [row._replace(planned_s=plan, cluster=cluster, sha256=sha256) for row, plan in zip(rows, plans, strict=True)]


def main(command: Sequence[str] | None = None) -> None:
    arguments = arguments_of(command)
    if arguments.recorded:
        print(table(planned_anew(read(), arguments.cluster)))
        return
    if arguments.calibrate:
        load = OtherLoad()
        calibrated = processors.calibrate(arguments.cluster, lambda what: print(f"  {what}", flush=True))
        write_cluster(calibrated, CALIBRATED / f"{arguments.cluster}.yaml", heading(load.remark()))
    cluster = load_cluster(arguments.cluster, CALIBRATED)
    if arguments.core_seconds:
        plan, measure, unit = predicted_core_seconds, core_seconds, "core s"
    else:
        plan, measure, unit = predicted, partial(measured, steps=arguments.steps), "s"
    plans = {name: plan(layout, cluster) for name, layout in LAYOUTS.items()}
    real = seconds_of(measure, plans, arguments.rounds)
    rows = [
        row(name, layout.world_size, plans[name], real[name], arguments.cluster) for name, layout in LAYOUTS.items()
    ]
    if unit == "s":
        write(rows)
    print("", table(rows, unit), sep="\n")


def arguments_of(command: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", action="store_true", help="measure the machine first, into the cluster's file")
    parser.add_argument("--cluster", default="cpu_here")
    parser.add_argument("--recorded", action="store_true", help="plan against planner_layouts.csv, run nothing")
    parser.add_argument("--core-seconds", action="store_true", help="of all ranks together, instead of the clock's")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    return parser.parse_args(command)


if __name__ == "__main__":
    main()
