"""The run of `python project/plan.py calibrate=true`."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import torch

from project.calibration import gpus, processors
from project.calibration.load import OtherLoad
from project.planner.machine.cluster_file import write_cluster
from project.planner.machine.this_host import calibration_file, host_key
from project.spec.disk import writing


def calibrate(folder: Path, environ: Mapping[str, str]) -> None:
    """Measures this machine, with a progress bar, and writes the cluster's file into the user's cache, under this host,
    and into the run's folder. Says where other processes kept cores busy meanwhile."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    devices = torch.cuda.device_count()
    name, stages = ("gpu_here", gpus.stages(devices)) if devices else ("cpu_here", processors.STAGES)
    kept = calibration_file(name, environ)
    with writing(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measurements that could not be kept
    load = OtherLoad()
    columns = (TextColumn("{task.description:40}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=stages)
        begun = False

        def progress(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, advance=1 if begun else 0)
            begun = True

        cluster = gpus.calibrate(name, progress, devices) if devices else processors.calibrate(name, progress)
        bar.update(task, description="done", completed=stages)
    remark = load.remark()
    for path in (kept, folder / f"{name}.yaml"):
        with writing(path):
            write_cluster(cluster, path, heading(remark))
    console = Console()
    if remark:
        console.print(f"Warning: {remark}. The figures hold under such a load alone; calibrate again when it is gone.")
    console.print(f"{kept}: used on this host as cluster={name}", soft_wrap=True)


def heading(remark: str | None = None) -> str:
    """The comment of a calibration's file: when and on which host it was measured, and under which load."""
    lines = [
        f"Measured by `python project/plan.py calibrate=true` on {date.today()}: {host_key()}.",
        *([f"{remark[0].upper()}{remark[1:]}."] if remark else []),
        "Of another machine it says nothing: calibrate there.",
    ]
    return "\n".join(lines)
