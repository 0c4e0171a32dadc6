"""Faults of a folder that cannot be written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from project.spec.fault import Fault


def folder_faults(key: str, folder: Path) -> Iterator[Fault]:
    """Tries to write into the folder, or into the nearest parent that exists, and leaves nothing behind: permissions do
    not show that a file system is read-only or full, and root has them all.
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
