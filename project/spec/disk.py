"""Errors of files that cannot be written, in one line: the file, the reason, and how much space is left there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from project.spec.fault import Told


class NotWritten(Told, OSError):
    """A file that cannot be written; `path` is the file and `reason` what the system said."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: cannot be written: {reason}{space_left(path)}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises NotWritten for an OSError inside."""
    try:
        yield
    except NotWritten:
        raise
    except OSError as error:
        raise NotWritten(path, error.strerror or str(error)) from None


def space_left(path: Path) -> str:
    """The free space where the path is, in brackets; empty where that is not known."""
    for folder in (path, *path.absolute().parents):
        try:
            return f" ({shutil.disk_usage(folder).free / 1e6:,.1f} MB free there)"
        except OSError:
            continue
    return ""
