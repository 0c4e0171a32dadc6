"""`python project/plan.py calibrate=true`."""

from pathlib import Path

import torch

from project.calibration import calibrate as machine
from project.planner.cluster_file import write_cluster


def calibrate(clusters: Path, folder: Path) -> None:
    """Measures this machine with a bar, and writes the file among the clusters and into the run folder."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    on_gpus = torch.cuda.device_count() > 0
    name, stages = ("gpu_here", machine.GPU_STAGES) if on_gpus else ("cpu_here", machine.STAGES)
    columns = (TextColumn("{task.description:40}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=stages)
        begun = False

        def progress(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, advance=1 if begun else 0)
            begun = True

        measure = machine.calibrate_gpus if on_gpus else machine.calibrate_processors
        cluster = measure(name, progress)
        bar.update(task, description="done", completed=stages)
    for path in (clusters / f"{name}.yaml", folder / f"{name}.yaml"):
        write_cluster(cluster, path, machine.heading())
    Console().print(f"{clusters / name}.yaml: use it as cluster={name}", soft_wrap=True)
