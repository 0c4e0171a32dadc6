"""Converts checkpoints to Hugging Face folders and back, with one tensor in memory at a time."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from project.data.tokenizer import TOKENIZER_CONFIG, ending, open_tokenizer, tokenizer_faults
from project.spec.layout import ParallelLayout
from project.state.checkpoint.manifest import META, TOKENIZER, tensor_file
from project.state.checkpoint.partial import PartialFolder
from project.state.checkpoint.tensor_file import Chunk, write_tensors
from project.state.weights.families import their_name, to_config_json, unholdable
from project.state.weights.source import CONFIG, INDEX
from project.state.weights.weights import Weights, WeightsError, matrices, parameters

SHARD_BYTES = 5_000_000_000
Progress = Callable[[int, int], None]
"""A callback that is given the bytes written so far, and the bytes in all."""


def to_hf(
    weights: Weights, folder: Path, progress: Progress, tokenizer: Path | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes a folder that `AutoModelForCausalLM.from_pretrained` opens, and `AutoTokenizer` if there is a tokenizer.

    Raises:
        WeightsError: if no family of transformers' can hold the model, the weights are damaged, or the folder is not
            empty.
    """
    refuse_taken(folder)
    faults = unholdable(weights.config)
    tokenizer = tokenizer or weights.tokenizer
    if tokenizer:
        faults += tokenizer_faults(str(tokenizer), weights.config.vocab_size)
    if faults:
        raise WeightsError([str(fault) for fault in faults])
    weights.check_tensors()
    weights.verify()
    of = {
        their_name(weights.config, name, expert): (name, expert, shape)
        for name, expert, shape in matrices(weights.config)
    }
    chunks = [whole(theirs, weights.dtype(name), shape) for theirs, (name, _, shape) in of.items()]
    watched = Watched(chunks, progress)
    with new_folder(folder) as partial:
        write_shards(partial, chunks, lambda chunk: watched(chunk, weights.read(*of[chunk.name][:2])), shard_bytes)
        write_description(partial, weights, {chunk.dtype for chunk in chunks}, tokenizer)


def write_description(folder: Path, weights: Weights, dtypes: set[torch.dtype], tokenizer: Path | None) -> None:
    number, end = (tokenizer and known_ending(tokenizer)) or (None, None)
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    config = to_config_json(weights.config, str(dtype).removeprefix("torch."), number)
    write_json(folder / CONFIG, config)
    write_json(folder / "generation_config.json", {"eos_token_id": number, "pad_token_id": number})
    if tokenizer:
        open_tokenizer(tokenizer).save(str(folder / TOKENIZER))
        write_json(folder / TOKENIZER_CONFIG, tokenizer_config(end, weights.config.max_seq_len))


def from_hf(weights: Weights, checkpoint: Path, progress: Progress) -> None:
    """Writes a checkpoint of weights alone, for `init_from`.

    Raises:
        WeightsError: if tensors are missing or have another shape, or the checkpoint exists already.
    """
    refuse_taken(checkpoint)
    weights.check_tensors()
    weights.verify()
    chunks = [whole(name, weights.dtype(name), shape) for name, shape in parameters(weights.config)]
    watched = Watched(chunks, progress)
    partial = PartialFolder(checkpoint, token=str(os.getpid())).create()
    try:
        partial.write_tensors(
            tensor_file("weights", 0), aligned(chunks), lambda chunk: watched(chunk, stacked(weights, chunk))
        )
        if weights.tokenizer:
            partial.write(TOKENIZER, weights.tokenizer.read_bytes())
            if end := known_ending(weights.tokenizer):
                partial.write_json(TOKENIZER_CONFIG, {"eos_token": end[1]})
        partial.write_json(META, meta(weights))
        partial.seal(partial.files)
    finally:
        partial.discard()


def stacked(weights: Weights, chunk: Chunk) -> Tensor:
    """A whole parameter; a stacked one is put together expert by expert."""
    if len(chunk.sizes) < 3:
        return weights.read(chunk.name)
    stack = torch.empty(chunk.sizes, dtype=chunk.dtype)
    for expert, matrix in enumerate(stack):
        read = weights.read(chunk.name, expert)
        if read.dtype != chunk.dtype:
            raise WeightsError(
                [f"{weights.path}: {weights.called(chunk.name, expert)} has another dtype than expert 0"]
            )
        matrix.copy_(read)
    return stack


def meta(weights: Weights) -> dict[str, Any]:
    """The `meta.json` of a checkpoint that no run has written."""
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": version("lightning"),
        "loops": {},
        "layout": asdict(ParallelLayout()),
        "world_size": 1,
        "weights_only": True,
        "versions": {"torch": torch.__version__, "lightning": version("lightning")},
        "config": {"model": asdict(weights.config)},
    }


class Watched:
    """Passes tensors through and reports the progress."""

    def __init__(self, chunks: list[Chunk], progress: Progress) -> None:
        self.total, self.done, self.progress = sum(chunk.nbytes for chunk in chunks), 0, progress

    def __call__(self, chunk: Chunk, tensor: Tensor) -> Tensor:
        self.done += chunk.nbytes
        self.progress(self.done, self.total)
        return tensor


def whole(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Chunk:
    """The chunk that is a whole tensor."""
    return Chunk(name, dtype, (0,) * len(shape), tuple(shape))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_shards(folder: Path, chunks: Sequence[Chunk], tensor: Callable[[Chunk], Tensor], shard_bytes: int) -> None:
    """Writes files of at most `shard_bytes` each (more if one tensor is larger), and their index."""
    shards = list(into_shards(chunks, shard_bytes))
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_tensors(folder / name, aligned(shard), tensor)
    index = {
        "metadata": {"total_size": sum(chunk.nbytes for chunk in chunks)},
        "weight_map": {chunk.name: name for name, shard in zip(names, shards, strict=True) for chunk in shard},
    }
    write_json(folder / INDEX, index)


def into_shards(chunks: Iterable[Chunk], shard_bytes: int) -> Iterator[list[Chunk]]:
    shard: list[Chunk] = []
    for chunk in chunks:
        if shard and sum(held.nbytes for held in shard) + chunk.nbytes > shard_bytes:
            yield shard
            shard = []
        shard.append(chunk)
    yield shard


def aligned(chunks: Iterable[Chunk]) -> list[Chunk]:
    """The chunks with the widest dtypes first, so that every tensor is aligned for memory mapping."""
    return sorted(chunks, key=lambda chunk: -chunk.dtype.itemsize)


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


def known_ending(tokenizer: Path) -> tuple[int, str] | None:
    """The id and the text of the end-of-text token, or None if the tokenizer has none that is known."""
    opened = open_tokenizer(tokenizer)
    try:
        return ending(opened, tokenizer.parent)
    except ValueError:
        return None


def tokenizer_config(end: str | None, max_seq_len: int) -> dict[str, object]:
    """The content of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        **({"eos_token": end} if end else {}),
        "clean_up_tokenization_spaces": False,
    }
