"""Opens the weights at a path: a checkpoint of this project, a run's folder, or the folder of a model of transformers,
as `save_pretrained` writes it and the Hugging Face hub has it. Only reading a checkpoint or a tensor imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from project.spec.model import ModelConfig
from project.spec.untrusted import Unreadable, read_json, regular
from project.state.checkpoint.last import FOLDER, checkpoint_at
from project.state.checkpoint.manifest import MANIFEST, TOKENIZER, CheckpointError
from project.state.weights.config_json import config_json_faults, from_config_json
from project.state.weights.families import names, their_name
from project.state.weights.foreign import general, told_apart
from project.state.weights.weights import LISTED, Matrix, Weights, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ADAPTER, CONFIG, INDEX, SINGLE = (
    "adapter_config.json",
    "config.json",
    "model.safetensors.index.json",
    "model.safetensors",
)
_NOT_LEARNT = ".rotary_emb.inv_freq"  # a buffer that early versions saved


def open_weights(path: str | Path) -> Weights:
    """Opens weights; it reads headers and no tensor.

    Raises:
        WeightsError: with everything that is wrong.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise WeightsError([f"{folder}: is no folder; relative paths are from {Path.cwd()}"])
    if (folder / CONFIG).exists():
        return HuggingFaceFolder(folder)
    if (folder / ADAPTER).exists():
        merge = "save the merged model: model.merge_and_unload().save_pretrained(folder)"
        raise WeightsError([f"{folder}: has an adapter alone ({ADAPTER}); {merge}"])
    if (folder / FOLDER).is_dir() and (folder := checkpoint_at(of_run := folder)) == of_run:
        raise WeightsError([f"{folder / FOLDER}: has no whole checkpoint yet"])
    if not (folder / MANIFEST).exists():
        kinds = "no checkpoint (manifest.json), no run (checkpoints/) and nothing of Hugging Face's (config.json)"
        raise WeightsError([f"{folder}: is {kinds}"])
    return CheckpointWeights(folder)


class CheckpointWeights(Weights):
    """The weights of a checkpoint.

    Raises:
        WeightsError: if the checkpoint is not whole, or does not have its model's configuration.
    """

    def __init__(self, path: Path) -> None:
        from project.state.checkpoint.reader import Checkpoint

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
        folders = (self.path, self.path.absolute().parent.parent)
        return next((file for folder in folders if (file := _own_file(folder / TOKENIZER, folder))), None)

    def called(self, name: str, index: int | None = None) -> str:
        return name if index is None else f"{name}[{index}]"

    def shape(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        stored = self.stored.get(name)
        if stored is None or (index is not None and index >= stored.shape[0]):
            return None
        return tuple(stored.shape if index is None else stored.shape[1:])

    def dtype(self, name: str) -> torch.dtype:
        return self.stored[name].dtype

    def kind(self, name: str, index: int | None = None) -> str:
        from project.state.checkpoint.values import DTYPE_NAMES

        return DTYPE_NAMES[self.dtype(name)]

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

    def compare_checksums(self) -> None:
        try:
            self.checkpoint.verify()
        except CheckpointError as error:
            raise WeightsError([f"{error.path}: {error.problem}"]) from None


def model_config(meta: dict[str, Any]) -> ModelConfig:
    """The model's configuration in a checkpoint's `meta`. Keys that only a later version knows are left out."""
    known = {field.name for field in fields(ModelConfig)}
    config = {key: value for key, value in meta["config"]["model"].items() if key in known}
    return TypeAdapter(ModelConfig).validate_python(config)


def _own_file(path: Path, folder: Path) -> Path | None:
    """The path if there is something, which has to be a file of the folder.

    Raises:
        WeightsError: for anything else, such as a link out of it.
    """
    if not path.is_symlink() and not path.exists():
        return None
    try:
        return regular(path, folder)
    except Unreadable as error:
        raise WeightsError([str(error)]) from None


class Stored(NamedTuple):
    """A tensor's file, shape, and dtype as safetensors names it."""

    file: Path
    shape: tuple[int, ...]
    kind: str


class HuggingFaceFolder(Weights):
    """Weights in Hugging Face's format, of one of `families.FAMILIES`. It opens no pickle, and only `read` imports
    torch.

    Raises:
        WeightsError: if the config describes a model that this project cannot compute, or files are missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = self._json(CONFIG)
        if faults := list(config_json_faults(content)):
            raise WeightsError([f"{path / CONFIG}: {fault}" for fault in faults])
        self.config = from_config_json(content)
        self.stored = self._headers()

    @property
    def tokenizer(self) -> Path | None:
        file = self.path / "tokenizer.json"
        return _own_file(file, self.path)

    def called(self, name: str, index: int | None = None) -> str:
        return their_name(self.config, name, index)

    def shape(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        stored = self.stored.get(their_name(self.config, name, index))
        return None if stored is None else stored.shape

    def dtype(self, name: str) -> torch.dtype:
        return self.read(name, 0).dtype  # only the name of a stacked parameter has the index

    def kind(self, name: str, index: int | None = None) -> str:
        return self.stored[their_name(self.config, name, index)].kind

    def strangers(self, known: Sequence[Matrix]) -> list[str]:
        names = self.stored.keys() - {their_name(self.config, name, index) for name, index, _ in known}
        return sorted(name for name in names if not name.endswith(_NOT_LEARNT))

    def other_writers(self) -> list[str]:
        ours = set(names(self.config).values())
        return list(told_apart(name for name in self.stored if general(name) not in ours))

    def compare_checksums(self) -> None:
        """No-op: the format has no checksums."""

    def read(self, name: str, index: int | None = None) -> Tensor:
        """A view of the memory-mapped file: only the elements that are used are read, and freed with the view."""
        from safetensors import safe_open

        theirs = their_name(self.config, name, index)
        with safe_open(self.stored[theirs].file, "pt") as file:
            return file.get_tensor(theirs)

    def _headers(self) -> dict[str, Stored]:
        from safetensors import SafetensorError, safe_open

        stored: dict[str, Stored] = {}
        wrong: list[str] = []
        placed = self._placed()
        for path in sorted(set(placed.values())) or [self.path / SINGLE]:
            try:
                with safe_open(regular(path, self.path), "np") as file:
                    for name in file.keys():  # noqa: SIM118 - no dict
                        described = file.get_slice(name)
                        if name in stored:
                            wrong.append(f"{path}: has {name}, which {stored[name].file.name} has too")
                        elif placed.get(name, path) != path:
                            wrong.append(f"{path}: has {name}, which {INDEX} places in {placed[name].name}")
                        stored[name] = Stored(path, tuple(described.get_shape()), described.get_dtype())
            except (OSError, SafetensorError, Unreadable) as error:
                wrong.append(str(error) if isinstance(error, Unreadable) else f"{path}: {error}")
        if wrong:
            raise WeightsError(wrong[:LISTED])
        return stored

    def _placed(self) -> dict[str, Path]:
        """The file of each tensor, as the index says; empty where all are in one file, as transformers reads it."""
        if (self.path / SINGLE).exists():
            return {}
        if not (self.path / INDEX).exists():
            pickled = "; pickles (*.bin) are not opened" if any(self.path.glob("*.bin")) else ""
            raise WeightsError([f"{self.path}: has neither {SINGLE} nor {INDEX}{pickled}"])
        try:
            names = dict(self._json(INDEX)["weight_map"])
        except (KeyError, TypeError, ValueError):
            names = {}
        if not names:
            raise WeightsError([f"{self.path / INDEX}: has no weight_map"])
        if strangers := [name for name in names.values() if not isinstance(name, str) or Path(name).name != name]:
            raise WeightsError([f"{self.path / INDEX}: names {strangers[0]}, which is not in the folder"])
        return {tensor: self.path / name for tensor, name in names.items()}

    def _json(self, name: str) -> Any:
        try:
            return read_json(self.path / name, self.path)
        except Unreadable as error:
            raise WeightsError([str(error)]) from None
