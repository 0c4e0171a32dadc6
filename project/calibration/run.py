"""The run of `python project/plan.py calibrate=true`."""

import platform
from datetime import date
from pathlib import Path

import torch

from project.calibration import gpus, processors
from project.engine.host import available_cores
from project.planner.machine.cluster_file import write_cluster


def calibrate(clusters: Path, folder: Path) -> None:
    """Measures this machine, with a progress bar, and writes the cluster's file into `clusters` and into the run
    folder."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    devices = torch.cuda.device_count()
    name, stages = ("gpu_here", gpus.stages(devices)) if devices else ("cpu_here", processors.STAGES)
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
    for path in (clusters / f"{name}.yaml", folder / f"{name}.yaml"):
        write_cluster(cluster, path, heading())
    Console().print(f"{clusters / name}.yaml: use it as cluster={name}", soft_wrap=True)


def heading() -> str:
    return (
        f"Measured by `python project/plan.py calibrate=true` on {date.today()}: "
        f"{platform.processor() or platform.machine()}, {available_cores()} cores, torch {torch.__version__}.\n"
        "Of another machine it says nothing: calibrate there."
    )
