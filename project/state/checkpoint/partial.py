"""A checkpoint in the making: a hidden folder beside its place, which takes its name at once when all is there."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from project.state.checkpoint.hashed_file import Hashed, HashedFile, sync_folder
from project.state.checkpoint.manifest import LEGAL_NAME, MANIFEST, manifest_text
from project.state.checkpoint.tensor_file import Chunk, write_tensors
from project.state.checkpoint.values import dumps

PARTIAL = ".{name}.partial-{token}"
REPLACED = ".replaced"
LOCK = ".lock"
"""Held by the run that writes into a folder of checkpoints."""


class PartialFolder:
    """Several processes may write into one, each its own files; one of them seals it with everybody's.

        partial = PartialFolder(Path("converted.ckpt"), token="0").create()
        partial.write_tensors("weights-00000.safetensors", chunks, tensor)
        partial.write_json("meta.json", {...})
        partial.seal(partial.files)

    `token` keeps apart those who write the same checkpoint at different times.
    """

    def __init__(self, final: Path, token: str) -> None:
        self.final = final
        self.path = final.parent / PARTIAL.format(name=final.name, token=token)
        self.files: dict[str, Hashed] = {}

    def create(self) -> "PartialFolder":
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def write_json(self, name: str, value: Any) -> None:
        """Raises `TypeError` for what JSON cannot hold."""
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
        """`files` is everybody's. A whole checkpoint of the same name makes room for this one."""
        self.write(MANIFEST, manifest_text(files))
        sync_folder(self.path)
        replaced = self.path.with_name(self.path.name + REPLACED)
        if self.final.exists():
            os.rename(self.final, replaced)
        os.rename(self.path, self.final)
        sync_folder(self.final.parent)
        shutil.rmtree(replaced, ignore_errors=True)

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """What writers that died have left in a folder of checkpoints, which must be nobody else's. One that had made room
    for another, which then did not come, has its name again."""
    for path in folder.glob(".*.partial-*"):
        if path.is_dir() and not path.is_symlink():
            final = folder / path.name[1:].rpartition(".partial-")[0]
            if path.name.endswith(REPLACED) and not final.exists():
                os.rename(path, final)
            shutil.rmtree(path, ignore_errors=True)


def remove_checkpoint(path: Path) -> None:
    """A whole one, and nothing else: its path may come out of a file that somebody else wrote."""
    if path.is_symlink():
        path.unlink()
    elif (path / MANIFEST).is_file() and ".." not in path.parts:
        going = path.with_name(PARTIAL.format(name=path.name, token="removed"))
        shutil.rmtree(going, ignore_errors=True)
        os.rename(path, going)  # at once: what has its name is whole
        shutil.rmtree(going, ignore_errors=True)
