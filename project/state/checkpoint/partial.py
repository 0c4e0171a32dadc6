"""An unfinished checkpoint: a hidden folder, which is renamed atomically when it is complete."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from project.run_folder import sync
from project.state.checkpoint.manifest import LEGAL_NAME, MANIFEST, Hashed, HashedFile, manifest_text
from project.state.checkpoint.tensor_file import Chunk, write_tensors
from project.state.checkpoint.values import dumps

PARTIAL = ".{name}.partial-{token}"
REPLACED = ".replaced"
LOCK = ".lock"
"""The lock file of a folder of checkpoints, held by the run that writes into it."""


class PartialFolder:
    """The folder of an unfinished checkpoint. Several processes may write into it, each its own files; one of them
    seals it with the files of all.

        partial = PartialFolder(Path("converted.ckpt"), token="0").create()
        partial.write_tensors("weights-00000.safetensors", chunks, tensor)
        partial.write_json("meta.json", {...})
        partial.seal(partial.files)

    `token` distinguishes runs that write the same checkpoint.
    """

    def __init__(self, final: Path, token: str) -> None:
        self.final = final
        self.path = final.parent / PARTIAL.format(name=final.name, token=token)
        self.files: dict[str, Hashed] = {}

    def create(self) -> "PartialFolder":
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def write_json(self, name: str, value: Any) -> None:
        """Writes a file of JSON. Raises `TypeError` for a value that `values` cannot encode."""
        self.write(name, dumps(value))

    def write_tensors(self, name: str, chunks: Sequence[Chunk], tensor: Callable[[Chunk], Tensor]) -> None:
        assert LEGAL_NAME.fullmatch(name)
        self.files[name] = write_tensors(self.path / name, chunks, tensor)

    def write(self, name: str, data: bytes) -> None:
        with HashedFile(self.path / name) as file:
            file.write(data)
        if LEGAL_NAME.fullmatch(name):
            self.files[name] = file.hashed

    def seal(self, files: Mapping[str, Hashed]) -> None:
        """Completes the checkpoint; `files` are those of all processes. A checkpoint of the same name is replaced."""
        self.write(MANIFEST, manifest_text(files))
        sync(self.path)
        replaced = self.path.with_name(self.path.name + REPLACED)
        if self.final.exists():
            os.rename(self.final, replaced)
        os.rename(self.path, self.final)
        sync(self.final.parent)
        shutil.rmtree(replaced, ignore_errors=True)

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the unfinished checkpoints that dead processes left in a folder; no other process may be writing there. A
    checkpoint that was moved away for a new one that was never completed gets its name back."""
    for path in folder.glob(".*.partial-*"):
        if path.is_dir() and not path.is_symlink():
            final = folder / path.name[1:].rpartition(".partial-")[0]
            if path.name.endswith(REPLACED) and not final.exists():
                os.rename(path, final)
            shutil.rmtree(path, ignore_errors=True)


def remove_checkpoint(path: Path) -> None:
    """Removes a finished checkpoint and nothing else, because the path may come from a file that is not trusted."""
    if path.is_symlink():
        path.unlink()
    elif (path / MANIFEST).is_file() and ".." not in path.parts:
        going = path.with_name(PARTIAL.format(name=path.name, token="removed"))
        shutil.rmtree(going, ignore_errors=True)
        os.rename(path, going)  # atomic, so that a folder with this name is always whole
        shutil.rmtree(going, ignore_errors=True)
