"""The clusters that stand for this machine: `cpu_here` and `gpu_here`. A calibration is kept in the user's cache under
the host that it was made on, and replaces the figures of `configs/cluster`, which are another machine's and assumed.
"""

import os
import platform
import re
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from project.planner.machine.cluster_file import CLUSTERS, cluster_entries, read_cluster
from project.spec.fault import Told

NAMES = ("cpu_here", "gpu_here")
_CACHE, _DEFAULT_CACHE = "PROJECT_CACHE_DIR", "~/.cache/project"
_PROCESSORS, _GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")


class DamagedCalibration(Told, ValueError):
    """A calibration that cannot be read; `path` is its file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; remove it, or calibrate again: python project/plan.py calibrate=true")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


def host_key() -> str:
    """The processor, the cores that this process may use, the GPUs and torch's version, in words."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    kinds = [f"{count} {kind}" for kind, count in sorted(Counter(_gpus()).items())]
    return ", ".join([_processor(), f"{available_cores()} cores", *kinds, f"torch {torch}"])


def available_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def calibration_file(name: str, environ: Mapping[str, str], host: str | None = None) -> Path:
    """The file of a host's calibration, there or not; `host` is this one unless given."""
    folder = Path(environ.get(_CACHE) or _DEFAULT_CACHE).expanduser()
    slug = re.sub(r"[^\w.+]+", "-", host_key() if host is None else host).strip("-")
    return folder / "clusters" / slug / f"{name}.yaml"


def with_calibration(entries: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """A cluster's entries with the figures that were measured on this host, where the cluster stands for it. What the
    configuration changed on its own stays as it is.

    Raises:
        DamagedCalibration: where there is a calibration that cannot be read.
    """
    given = dict(entries)
    name = str(given.get("name"))
    path = calibration_file(name, environ)
    if name not in NAMES or not path.is_file():
        return given
    try:
        measured = cluster_entries(name, path.parent)
        read_cluster(measured)
    except (OSError, ValueError) as error:
        raise DamagedCalibration(path, str(error).partition(f"{path}: ")[2] or str(error)) from None
    return _unless_changed(given, cluster_entries(name, CLUSTERS), measured)


def is_calibrated(entries: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """True if a cluster that stands for this machine has figures of it, and of every other cluster."""
    return entries.get("name") not in NAMES or calibration_file(entries["name"], environ).is_file()


def _unless_changed(given: Any, assumed: Any, measured: Any) -> Any:
    """`measured`, but where `given` differs from `assumed`."""
    if isinstance(given, Mapping) and isinstance(measured, Mapping):
        below = assumed if isinstance(assumed, Mapping) else {}
        own = {key: value for key, value in measured.items() if key not in given and key not in below}
        return {**own, **{key: _unless_changed(given[key], below.get(key), measured.get(key)) for key in given}}
    return measured if given == assumed else given


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", _PROCESSORS.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine() or "unknown processor"


def _gpus() -> list[str]:
    """The kind of each GPU that NVIDIA's driver lists, as it is known without starting CUDA."""
    try:
        texts = [path.read_text(encoding="utf-8") for path in _GPUS.glob("*/information")]
    except (OSError, UnicodeDecodeError):
        return []
    return [found[1].strip() for text in texts if (found := re.search(r"^Model:\s*(.+)$", text, re.MULTILINE))]
