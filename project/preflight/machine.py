"""The machine that a configuration is checked against: its facts, its memory, and the folders to write to."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project.preflight.gpus import Hardware
from project.spec.disk import space_left
from project.spec.fault import Fault
from project.spec.precision import settled

LEAST_SPACE = 1 << 16  # bytes: configuration, log and summary of a run take as much
PAGE = 4096


@dataclass(frozen=True)
class Surroundings:
    """The facts outside of the configuration that a check depends on.

    `gpus` counts the GPUs of this machine; it is called only where the accelerator may be a GPU, for counting imports
    torch. `memory` returns the bytes that ranks on its processors share. `run_folder` is None where it need not be
    checked.
    """

    environ: Mapping[str, str]
    gpus: Callable[[], int]
    hardware: Hardware
    run_folder: Path | None = None
    memory: Callable[[], float] = field(default=lambda: machine_memory())


def machine_memory(info: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")) -> float:
    """Bytes of memory and swap that this machine, or the container that this process runs in, has; infinite where that
    is not known."""
    if not info.exists():
        return float("inf")
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", info.read_text(encoding="utf-8"), re.MULTILINE))
    here = 1024 * (int(found.get("MemTotal", 0)) + int(found.get("SwapTotal", 0)))
    allowed = limit.read_text(encoding="utf-8").strip() if limit.exists() else "max"
    return min(here or float("inf"), int(allowed) if allowed.isdigit() else float("inf"))


def shared_memory_faults(data: Mapping[str, Any], ranks: int, shared: Path = Path("/dev/shm")) -> Iterator[Fault]:
    """The fault of loader processes whose batches have no room in shared memory, by which they hand them over; for
    data without other faults, of `ranks` on this machine."""
    workers = data.get("num_workers", 0)
    if not workers or not shared.is_dir():
        return
    batch = 2 * (data["batch_size"] * data["seq_len"] * 8 + PAGE)  # tokens and targets
    needed = (1 << 20) + ranks * workers * 2 * batch  # two batches ahead each
    there = shutil.disk_usage(shared).free
    if needed > there:
        message = (
            f"{ranks} ranks' loaders need {needed / 1e6:,.1f} MB of shared memory for their batches, and {shared} has "
            f"{there / 1e6:,.1f} MB; nearest 0, or more of it (docker run --shm-size)"
        )
        yield Fault("data.num_workers", workers, message)


def folder_faults(key: str, folder: Path | None) -> Iterator[Fault]:
    """Faults of a folder that cannot be written; none without a folder.

    Tries to write into the folder, or into the nearest parent that exists, and leaves nothing behind: permissions do
    not show that a file system is read-only or full, and root has them all.
    """
    if folder is None:
        return
    existing = folder.expanduser().absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        yield Fault(key, folder, f"cannot be created, because {existing} is a file; name another folder")
        return
    try:
        with tempfile.TemporaryDirectory(dir=existing) as tried:
            (Path(tried) / "file").write_bytes(bytes(LEAST_SPACE))
    except OSError as error:
        reason = f"cannot be written ({existing}: {error.strerror}{space_left(existing)}); name another folder"
        yield Fault(key, folder, reason)


def with_precision(config: Mapping[str, Any], around: Surroundings) -> dict[str, Any]:
    """The configuration with the precision that `auto` stands for on this machine."""
    trainer = config["trainer"]
    if trainer["precision"] != "auto":
        return dict(config)
    return {**config, "trainer": {**trainer, "precision": settled("auto", on_gpus(trainer["accelerator"], around))}}


def on_gpus(accelerator: str, around: Surroundings) -> bool:
    """Returns whether the ranks run on GPUs."""
    return accelerator in ("cuda", "gpu") or (accelerator == "auto" and around.gpus() > 0)
