"""A run folder's lock and its `summary.json`, which says what the run was and how it ended.

Every write replaces the file atomically, so that a run killed at any point leaves the last whole one. JSON has no NaN
and no infinity: both are written as null (`metrics.csv` keeps them).
"""

import contextlib
import errno
import json
import math
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from project.spec.cost import active_parameters, total_parameters
from project.spec.disk import NotWritten, writing
from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.run_files import Summary, read_form
from project.spec.sections import layout_of, model_of
from project.spec.untrusted import Unreadable, as_mapping, read_yaml

SUMMARY_KEYS = (
    "status",
    "error",
    "layout",
    "ranks",
    "device",
    "precision",
    "torch_version",
    "commit",
    "steps",
    "tokens",
    "train_loss_first",
    "train_loss_last",
    "val_loss",
    "step_time_s",
    "tokens_per_second",
    "mfu",
    "bubble",
    "time_to_first_step_s",
    "grad_norm_last",
    "parameters_total",
    "parameters_active",
    "parameters_per_rank",
    "peak_memory_bytes_per_rank",
    "gpu_memory_bytes_per_rank",
    "memory_by_category_per_rank",
    "activation_bytes_peak_per_stage",
    "communication",
    "expert_load",
    "planned",
)
LAYOUT_KEYS = ("pp", "dp", "tp", "ep", "etp", "world_size", "schedule", "microbatches", "virtual_stages")


def hold(run_folder: str | Path) -> FileLock | Fault:
    """Locks a run folder for this process until it ends, or returns a fault where another process holds it."""
    folder = Path(run_folder)
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:  # an OSError, too
        return Fault("hydra.run.dir", folder, "another run that is not over yet writes there; name another folder")
    except OSError as error:
        return Fault("hydra.run.dir", folder, f"its {folder / '.lock'} cannot be locked: {error.strerror or error}")
    return lock


def write_atomically(path: Path, text: str) -> None:
    """Writes the file such that a reader, or a kill, finds the old text or the new one, never a part.

    Raises:
        NotWritten: where it cannot be written; the old text stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    content = text.encode(errors="replace")  # a lone surrogate of a file of JSON is no text
    with writing(path):
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_in_place(path: Path, text: str) -> None:
    """Writes a short text over a file that is there, where a full disk has no room for a second one. A kill in between
    may leave a part."""
    content = text.encode(errors="replace")
    with writing(path), path.open("r+b") as file:
        if len(content) > os.fstat(file.fileno()).st_blocks * 512:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.write(content)
        file.truncate()


def sync(path: Path) -> None:
    """Synchronises a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_summary(run_folder: str | Path, summary: Mapping[str, Any]) -> None:
    """Writes every key of `SUMMARY_KEYS`, null where `summary` has none. Raises NotWritten."""
    assert summary.keys() <= set(SUMMARY_KEYS), f"not in the contract: {summary.keys() - set(SUMMARY_KEYS)}"
    whole = {key: _finite(summary.get(key)) for key in SUMMARY_KEYS}
    folder = Path(run_folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(whole, indent=2, allow_nan=False) + "\n"
    try:
        write_atomically(folder / "summary.json", text)
    except NotWritten:
        if not (folder / "summary.json").is_file():
            raise
        write_in_place(folder / "summary.json", text)


def read_summary(run_folder: str | Path) -> dict[str, Any] | None:
    """The summary, or None where the run has not written one.

    Raises:
        Unreadable: for a file that no run has written so.
    """
    path = Path(run_folder) / "summary.json"
    return read_form(Summary, path, path.parent) if os.path.lexists(path) else None


def mark_failed(run_folder: str | Path, error: str) -> None:
    """Marks a run as failed from outside it, with the lines of `error` joined into one. A run that failed before its
    first step has no summary yet: it gets one with what its `config.yaml` says."""
    _mark(run_folder, "failed", " ".join(error.split()))


def mark_interrupted(run_folder: str | Path) -> None:
    """Marks a run as interrupted, by Ctrl-C or SIGTERM, in the same way; one that was completed stays so."""
    with contextlib.suppress(Unreadable):
        if (read_summary(run_folder) or {}).get("status") == "completed":
            return
    _mark(run_folder, "interrupted", None)


def layout_entry(layout: ParallelLayout) -> dict[str, Any]:
    return {name: getattr(layout, name) for name in LAYOUT_KEYS}


def _mark(run_folder: str | Path, status: str, error: str | None) -> None:
    try:
        summary = read_summary(run_folder) or _from_config(Path(run_folder) / "config.yaml")
    except Unreadable:
        summary = _from_config(Path(run_folder) / "config.yaml")
    ours = {key: value for key, value in summary.items() if key in SUMMARY_KEYS}
    write_summary(run_folder, ours | {"status": status, "error": error})


def _from_config(path: Path) -> dict[str, Any]:
    summary: dict[str, Any] = {"torch_version": version("torch"), "steps": 0, "tokens": 0}
    if not path.exists():
        return summary
    config = as_mapping(path, read_yaml(path))
    summary["precision"] = (config.get("trainer") or {}).get("precision")
    summary["layout"] = layout_entry(layout_of(config.get("parallel") or {}))
    model = model_of(config.get("model") or {})
    return summary | {"parameters_total": total_parameters(model), "parameters_active": active_parameters(model)}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
