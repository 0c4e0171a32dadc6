"""Which kind of weights a path leads to."""

from __future__ import annotations

from pathlib import Path

from project.weights.hf_folder import MixtralFolder
from project.weights.weights import Weights, WeightsError

LAST = "last.ckpt"


def open_weights(path: str | Path) -> Weights:
    """Reads headers, no tensor.

    Raises:
        WeightsError: with all that is wrong.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise WeightsError([f"{folder}: is no folder; relative paths are from {Path.cwd()}"])
    if (folder / "config.json").is_file():
        return MixtralFolder(folder)
    if (folder / "checkpoints").is_dir():
        folder = last_checkpoint(folder / "checkpoints")
    if not (folder / "manifest.json").is_file():
        kinds = "no checkpoint (manifest.json), no run (checkpoints/) and nothing of Hugging Face's (config.json)"
        raise WeightsError([f"{folder}: is {kinds}"])
    from project.weights.checkpoint import CheckpointWeights  # which imports torch

    return CheckpointWeights(folder)


def last_checkpoint(folder: Path) -> Path:
    """What the run's link leads to, or else what was written last."""
    if (folder / LAST).is_dir():
        return (folder / LAST).resolve()
    whole = [path.parent for path in folder.glob("*/manifest.json")]
    if not whole:
        raise WeightsError([f"{folder}: has no whole checkpoint yet"])
    return max(whole, key=lambda path: (path / "manifest.json").stat().st_mtime)
