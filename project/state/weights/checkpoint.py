"""The weights of a checkpoint of this project, written under any layout, read matrix by matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from project.spec.model import ModelConfig
from project.state.checkpoint.error import CheckpointError
from project.state.checkpoint.manifest import TOKENIZER
from project.state.checkpoint.reader import Checkpoint
from project.state.weights.weights import Weights, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from project.state.weights.matrices import Matrix


class CheckpointWeights(Weights):
    """The weights of a checkpoint.

    Raises:
        WeightsError: if the checkpoint is not whole, or does not have its model's configuration.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.checkpoint = Checkpoint(path)
            self.stored = self.checkpoint.weights
            self.config = model_config(self.checkpoint.meta)
        except CheckpointError as error:
            raise WeightsError([f"{error.path}: {error.problem}"]) from None
        except (KeyError, TypeError, AttributeError, ValueError):
            raise WeightsError([f"{path}: does not say of what model it is (meta.json: config.model)"]) from None

    @property
    def tokenizer(self) -> Path | None:
        """The checkpoint's own `tokenizer.json`, or that of the run whose `checkpoints/` it lies in."""
        files = (self.path / TOKENIZER, self.path.absolute().parent.parent / TOKENIZER)
        return next((file for file in files if file.is_file()), None)

    def called(self, name: str, index: int | None = None) -> str:
        return name if index is None else f"{name}[{index}]"

    def shape(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        stored = self.stored.get(name)
        if stored is None or (index is not None and index >= stored.shape[0]):
            return None
        return tuple(stored.shape if index is None else stored.shape[1:])

    def dtype(self, name: str) -> torch.dtype:
        return self.stored[name].dtype

    def read(self, name: str, index: int | None = None) -> Tensor:
        try:
            if index is None:
                return self.checkpoint.read(name)
            return self.checkpoint.read(name, (slice(index, index + 1),))[0]
        finally:
            self.checkpoint.close()

    def strangers(self, known: Sequence[Matrix]) -> list[str]:
        names = self.stored.keys() - {matrix.name for matrix in known}
        return sorted(name for name in names if not name.endswith(".expert_bias"))

    def verify(self) -> None:
        try:
            self.checkpoint.verify()
        except CheckpointError as error:
            raise WeightsError([f"{error.path}: {error.problem}"]) from None


def model_config(meta: dict[str, Any]) -> ModelConfig:
    """The model's configuration in a checkpoint's `meta`. Keys that only a later version knows are left out."""
    known = {field.name for field in fields(ModelConfig)}
    config = {key: value for key, value in meta["config"]["model"].items() if key in known}
    return TypeAdapter(ModelConfig).validate_python(config)
