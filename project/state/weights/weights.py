"""A trained model's weights, independent of the format that they are stored in, read one matrix at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from project.spec.cost import tables, weights
from project.spec.fault import Fault, said
from project.spec.model import ModelConfig
from project.state.weights.foreign import told_dtype, told_values

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Model keys that determine the tensors' shapes, and keys that change the meaning of the same tensors.
SHAPES = (
    *("num_layers", "d_model", "num_heads", "num_kv_heads", "head_dim", "d_ff", "num_experts", "vocab_size"),
    *("num_shared_experts", "shared_gate", "num_dense_layers", "qkv_bias", "qk_norm", "qk_norm_over"),
)
MEANINGS = ("top_k", "score", "norm_top_k", "rope_theta", "norm_eps")
LISTED = 5


class WeightsError(ValueError):
    """Weights that cannot be read; each of `reasons` names a file and what is wrong with it."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = list(reasons)


class Matrix(NamedTuple):
    """A parameter, or one expert's part of a stacked one; it is drawn, read and written as one piece."""

    name: str
    expert: int | None
    shape: tuple[int, ...]


def parameters(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every parameter's global name and shape, in the order of the forward, from the tables of the layers."""
    of = tables(config)
    layers = (
        (f"layers.{layer}.", of.experts if layer in config.moe_layers else of.dense)
        for layer in range(config.num_layers)
    )
    for prefix, table in (("", of.first), *layers, ("", of.last)):
        yield from ((prefix + weight.name, weight.shape) for weight in weights(table))


def matrices(config: ModelConfig) -> Iterator[Matrix]:
    """Every matrix of a model. A parameter of three dims is stacked over the experts, as for `materialize`."""
    for name, shape in parameters(config):
        if len(shape) == 3:
            yield from (Matrix(name, index, shape[1:]) for index in range(shape[0]))
        else:
            yield Matrix(name, None, shape)


class Weights(ABC):
    """A model's weights in some format; `stored` has the tensors by the names that the format gives them."""

    path: Path
    config: ModelConfig
    stored: Mapping[str, Any]

    @property
    @abstractmethod
    def tokenizer(self) -> Path | None:
        """The `tokenizer.json` that the model was trained with, or None if it is unknown."""

    @abstractmethod
    def called(self, name: str, index: int | None = None) -> str:
        """The format's name for a parameter, or for one expert's matrix of a stacked one."""

    @abstractmethod
    def shape(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        """The shape of what `read` would return; None if it does not exist."""

    @abstractmethod
    def read(self, name: str, index: int | None = None) -> Tensor:
        """A parameter by its global name, or one expert's matrix of a stacked one."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a parameter; all matrices of a stacked one share it."""

    @abstractmethod
    def kind(self, name: str, index: int | None = None) -> str:
        """The dtype as safetensors names it, without reading the tensor; `shape` says that it exists."""

    @abstractmethod
    def strangers(self, known: Sequence[Matrix]) -> list[str]:
        """The names of stored tensors that are not among `known`."""

    def other_writers(self) -> list[str]:
        """Says of stored tensors of other writers what they are, and how to save them."""
        return []

    @abstractmethod
    def compare_checksums(self) -> None:
        """Raises `WeightsError` if a checksum differs; a no-op for a format that has none."""

    def verify(self) -> None:
        """Reads everything, which `check_tensors` found to be there.

        Raises:
            WeightsError: if a checksum differs, or a number is not finite.
        """
        self.compare_checksums()
        reasons: list[str] = []
        for name, index, _ in matrices(self.config):
            if reason := told_values(self.called(name, index), self.read(name, index)):
                reasons.append(reason)
        self._refuse(reasons)

    def check_tensors(self) -> None:
        """Checks that the stored tensors are those of the config. The config is not trusted: no model is built from it
        that has more layers than there are tensors.

        Raises:
            WeightsError: for tensors that are missing, have another shape, or do not belong to the model.
        """
        foreign = self.other_writers()
        if self.config.num_layers > len(self.stored):
            self._refuse([*foreign, f"has {self.config.num_layers} layers, but {len(self.stored)} tensors"])
        reasons: list[str] = []
        for name, index, wanted in matrices(self.config):
            shape = self.shape(name, index)
            if shape is None:
                reasons.append(f"{self.called(name, index)} is missing")
            elif shape != wanted:
                reasons.append(f"{self.called(name, index)} has shape {list(shape)} instead of {list(wanted)}")
            elif reason := told_dtype(self.called(name, index), self.kind(name, index)):
                reasons.append(reason)
            if len(reasons) > LISTED:
                break
        else:
            reasons += [f"{name} is no tensor of the model" for name in self.strangers(list(matrices(self.config)))]
        if reasons:
            self._refuse([*foreign, *reasons])

    def _refuse(self, reasons: Sequence[str]) -> None:
        """Raises `WeightsError` with the first few of the reasons, if there are any."""
        if reasons:
            more = ["and more tensors"] if len(reasons) > LISTED else []
            raise WeightsError([f"{self.path}: {reason}" for reason in [*reasons[:LISTED], *more]])

    def config_faults(self, model: ModelConfig) -> list[Fault]:
        """The faults of a model that the tensors do not fit into."""
        return [
            Fault(f"model.{key}", said(ours), f"{self.path} has {said(theirs)}; model.{key}={said(theirs)} takes it")
            for key, ours, theirs in self._differences(model, SHAPES)
        ]

    def config_warnings(self, model: ModelConfig) -> list[str]:
        """Warnings about a model that would compute something else with the same tensors."""
        return [
            f"model.{key}={said(ours)}: {self.path} was trained with {said(theirs)}"
            for key, ours, theirs in self._differences(model, MEANINGS)
        ]

    def _differences(self, model: ModelConfig, keys: Sequence[str]) -> list[tuple[str, object, object]]:
        pairs = ((key, getattr(model, key), getattr(self.config, key)) for key in keys)
        return [(key, ours, theirs) for key, ours, theirs in pairs if ours != theirs]
