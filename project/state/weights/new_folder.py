"""A new folder that gets its name when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from project.state.weights.weights import WeightsError


def refuse_taken(target: Path) -> None:
    """Raises `WeightsError` if `target` is a file or a folder that is not empty."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError([f"{target}: is {'not empty' if target.is_dir() else 'a file'}; name a new folder"])


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder, which is renamed to `target` at the end, or removed after an error."""
    refuse_taken(target)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        os.rename(partial, target)  # also over an empty folder
    finally:
        shutil.rmtree(partial, ignore_errors=True)
