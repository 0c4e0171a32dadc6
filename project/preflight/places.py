"""Folders that cannot be written and checkpoints that are not there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from project.spec.fault import Fault
from project.state.checkpoint.error import CheckpointError
from project.state.checkpoint.last import checkpoint_at
from project.state.checkpoint.manifest import read_manifest, weights_alone


def folder_faults(key: str, folder: Path) -> Iterator[Fault]:
    """Tries to write into the folder, or into the nearest one above it that exists, and leaves nothing behind:
    permissions alone do not tell of a read-only or a full file system, nor of root's.
    """
    existing = folder.expanduser().absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        yield Fault(key, folder, f"cannot be created, because {existing} is a file; name another folder")
        return
    try:
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        yield Fault(key, folder, f"cannot be written ({existing}: {error.strerror}); name another folder")


def resume_faults(resume: object) -> Iterator[Fault]:
    """`resume` is null, `auto`, or the path of a checkpoint or of a run, of which it is the last."""
    if resume is None or resume == "auto":
        return
    if not isinstance(resume, str) or not resume:
        yield Fault("resume", resume, "must be null, auto, or the path of a checkpoint or a run")
        return
    path = Path(resume).expanduser()
    if not path.exists():
        yield Fault("resume", resume, f"does not exist; give auto or a path, relative ones from {Path.cwd()}")
        return
    try:
        files = read_manifest(checkpoint_at(path))
    except CheckpointError as error:
        yield Fault("resume", resume, str(error))
        return
    if weights_alone(files):
        yield Fault("resume", resume, f"has weights alone, no run to go on with; init_from={resume} begins with them")
