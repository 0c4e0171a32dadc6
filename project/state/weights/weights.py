"""A trained model's weights, wherever they lie: read one matrix at a time, by whoever needs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from project.spec.fault import Fault
from project.spec.legal_values import said
from project.spec.model import ModelConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from project.state.weights.matrices import Matrix

# Keys of the model that decide which tensors there are, and keys by which the same tensors mean something else.
SHAPES = (
    *("num_layers", "d_model", "num_heads", "num_kv_heads", "head_dim", "d_ff", "num_experts", "vocab_size"),
    *("num_shared_experts", "num_dense_layers"),
)
MEANINGS = ("top_k", "score", "rope_theta", "norm_eps")
_LISTED = 5


class WeightsError(ValueError):
    """Weights that cannot be read; `reasons` says all that is wrong, each with the file."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = list(reasons)


class Weights(ABC):
    """`stored` is what there is, by the names that it has there."""

    path: Path
    config: ModelConfig
    stored: Mapping[str, Any]

    @property
    @abstractmethod
    def tokenizer(self) -> Path | None:
        """The `tokenizer.json` that the model was trained with, where it is known."""

    @abstractmethod
    def called(self, name: str, index: int | None = None) -> str:
        """What the parameter, or one expert's matrix of a stacked one, is called there."""

    @abstractmethod
    def shape(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        """Of what `read` would return; None for what is not there."""

    @abstractmethod
    def read(self, name: str, index: int | None = None) -> Tensor:
        """A parameter by its global name, or one expert's matrix of a stacked one."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """Of a parameter; a stacked one has one."""

    @abstractmethod
    def strangers(self, known: Sequence[Matrix]) -> list[str]:
        """What else there is."""

    @abstractmethod
    def verify(self) -> None:
        """Reads everything, and compares it with the checksums where there are any: raises `WeightsError`."""

    def check_tensors(self) -> None:
        """Raises `WeightsError` for tensors that are missing, have another shape than the config says, or are not the
        model's. A config is not trusted either: no more is made of it than there are tensors."""
        from project.state.weights.matrices import matrices

        if self.config.num_layers > len(self.stored):
            layers = f"{self.config.num_layers} layers, but {len(self.stored)} tensors"
            raise WeightsError([f"{self.path}: has {layers}"])
        reasons: list[str] = []
        try:
            for name, index, wanted in matrices(self.config):
                shape = self.shape(name, index)
                if shape is None:
                    reasons.append(f"{self.called(name, index)} is missing")
                elif shape != wanted:
                    reasons.append(f"{self.called(name, index)} has shape {list(shape)} instead of {list(wanted)}")
                if len(reasons) > _LISTED:
                    break
            else:
                reasons += [f"{name} is no tensor of the model" for name in self.strangers(list(matrices(self.config)))]
        except (RuntimeError, TypeError, ValueError) as error:  # torch's own, for sizes that are none
            reasons.append(f"the config is of no model: {str(error).splitlines()[0]}")
        if reasons:
            more = ["and more tensors"] if len(reasons) > _LISTED else []
            raise WeightsError([f"{self.path}: {reason}" for reason in [*reasons[:_LISTED], *more]])

    def config_faults(self, model: ModelConfig) -> list[Fault]:
        """Of a model that its tensors do not fit into."""
        return [
            Fault(f"model.{key}", said(ours), f"{self.path} has {said(theirs)}; model.{key}={said(theirs)} takes it")
            for key, ours, theirs in self._differences(model, SHAPES)
        ]

    def config_warnings(self, model: ModelConfig) -> list[str]:
        """Of a model that makes something else of the same tensors."""
        return [
            f"model.{key}={said(ours)}: {self.path} was trained with {said(theirs)}"
            for key, ours, theirs in self._differences(model, MEANINGS)
        ]

    def _differences(self, model: ModelConfig, keys: Sequence[str]) -> list[tuple[str, object, object]]:
        pairs = ((key, getattr(model, key), getattr(self.config, key)) for key in keys)
        return [(key, ours, theirs) for key, ours, theirs in pairs if ours != theirs]
