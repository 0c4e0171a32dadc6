"""A small checkpoint without any run: one process writes what two ranks would have written."""

import json
from pathlib import Path

import torch
from torch import Tensor

from project.state.checkpoint.manifest import MANIFEST, hash_of, manifest_text
from project.state.checkpoint.partial import PartialFolder
from project.state.checkpoint.tensor_file import Chunk
from project.state.checkpoint.values import loads

MADE = Path(__file__).parents[1] / "state/checkpoint/made_at_3bf299f/step=2.ckpt"

WHOLE = {
    "layers.0.wq.weight": torch.arange(24, dtype=torch.float32).reshape(4, 6),
    "layers.0.moe.experts.w1": torch.arange(48, dtype=torch.float64).reshape(4, 3, 4),
    "norm.weight": torch.ones(6, dtype=torch.bfloat16),
    "optimizer.0.step.norm.weight": torch.tensor(7.0),
}


def write_checkpoint(folder: Path, token: str = "0") -> Path:
    """Writes a checkpoint in which each of two ranks has half of the matrices' rows, and the first has the rest."""
    partial = PartialFolder(folder, token).create()
    for rank in (0, 1):
        for kind in ("weights", "optimizer"):
            boxes = {name: box(WHOLE[name], rank) for name in WHOLE if name.startswith("optimizer") == (kind[0] == "o")}
            here = {name: part for name, part in boxes.items() if part is not None}
            chunks = [Chunk(name, t.dtype, offsets, tuple(t.shape)) for name, (t, offsets) in here.items()]
            tensors = {name: tensor for name, (tensor, _) in here.items()}
            partial.write_tensors(f"{kind}-{rank:05d}.safetensors", chunks, lambda chunk, t=tensors: t[chunk.name])
        partial.write_json(f"rank-{rank:05d}.json", loads((MADE / "rank-00000.json").read_bytes()) | {"optimizers": []})
    meta = loads((MADE / "meta.json").read_bytes())
    partial.write_json("meta.json", meta | {"global_step": 3, "world_size": 2, "config": {"seed": 0}})
    partial.seal(partial.files)
    return folder


def box(tensor: Tensor, rank: int) -> tuple[Tensor, tuple[int, ...]] | None:
    if tensor.ndim < 2:
        return (tensor, (0,) * tensor.ndim) if rank == 0 else None
    half = len(tensor) // 2
    return tensor[rank * half : (rank + 1) * half], (rank * half, *(0,) * (tensor.ndim - 1))


def reseal(folder: Path) -> None:
    """Writes the manifest anew for the files as they are now, as a forger would."""
    names = json.loads((folder / MANIFEST).read_text())["files"]
    (folder / MANIFEST).write_bytes(manifest_text({name: hash_of(folder / name) for name in names}))


def header_of(file: Path) -> tuple[dict, bytes]:
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def with_header(file: Path, header: dict | bytes, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
