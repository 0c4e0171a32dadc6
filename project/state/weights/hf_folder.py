"""The weights of a MixtralForCausalLM in a folder, as `save_pretrained` writes it and the Hugging Face hub has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from project.state.weights.mixtral import from_mixtral, mixtral_faults, mixtral_name, template
from project.state.weights.weights import Weights, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from project.state.weights.matrices import Matrix

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
_NOT_LEARNT = ".rotary_emb.inv_freq"  # a buffer that early versions saved


class Stored(NamedTuple):
    """A tensor's file and shape."""

    file: Path
    shape: tuple[int, ...]


class MixtralFolder(Weights):
    """A Mixtral's weights in Hugging Face's format. It opens no pickle, and only `read` imports torch.

    Raises:
        WeightsError: if the config describes a model that this project cannot compute, or files are missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = self._json(CONFIG)
        if faults := list(mixtral_faults(content)):
            raise WeightsError([f"{path / CONFIG}: {fault}" for fault in faults])
        self.config = from_mixtral(content)
        self.stored = self._headers()

    @property
    def tokenizer(self) -> Path | None:
        file = self.path / "tokenizer.json"
        return file if file.is_file() else None

    def called(self, name: str, index: int | None = None) -> str:
        return mixtral_name(name, index)

    def shape(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        stored = self.stored.get(mixtral_name(name, index))
        return None if stored is None else stored.shape

    def dtype(self, name: str) -> torch.dtype:
        return self.read(name, 0 if "{expert}" in template(name) else None).dtype

    def strangers(self, known: Sequence[Matrix]) -> list[str]:
        names = self.stored.keys() - {mixtral_name(name, index) for name, index, _ in known}
        return sorted(name for name in names if not name.endswith(_NOT_LEARNT))

    def verify(self) -> None:
        """No-op: the format has no checksums."""

    def read(self, name: str, index: int | None = None) -> Tensor:
        """A view of the memory-mapped file: only the elements that are used are read, and freed with the view."""
        from safetensors import safe_open

        theirs = mixtral_name(name, index)
        with safe_open(self.stored[theirs].file, "pt") as file:
            return file.get_tensor(theirs)

    def _headers(self) -> dict[str, Stored]:
        from safetensors import SafetensorError, safe_open

        stored, wrong = {}, []
        for path in self._files():
            try:
                with safe_open(path, "np") as file:
                    for name in file.keys():  # noqa: SIM118 - no dict
                        stored[name] = Stored(path, tuple(file.get_slice(name).get_shape()))
            except (OSError, SafetensorError) as error:
                wrong.append(f"{path}: {'is missing' if isinstance(error, FileNotFoundError) else error}")
        if wrong:
            raise WeightsError(wrong)
        return stored

    def _files(self) -> list[Path]:
        if (self.path / SINGLE).is_file():
            return [self.path / SINGLE]
        if not (self.path / INDEX).is_file():
            pickled = "; pickles (*.bin) are not opened" if any(self.path.glob("*.bin")) else ""
            raise WeightsError([f"{self.path}: has neither {SINGLE} nor {INDEX}{pickled}"])
        try:
            names = sorted(set(self._json(INDEX)["weight_map"].values()))
        except (KeyError, TypeError, AttributeError):
            raise WeightsError([f"{self.path / INDEX}: has no weight_map"]) from None
        if strangers := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
            raise WeightsError([f"{self.path / INDEX}: names {strangers[0]}, which is not in the folder"])
        return [self.path / name for name in names]

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError([f"{self.path / name}: cannot be read as JSON ({error})"]) from None
