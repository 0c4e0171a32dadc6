"""Opens the weights at a path: a checkpoint, a run's folder, or a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from project.state.checkpoint.last import FOLDER, checkpoint_at
from project.state.weights.hf_folder import MixtralFolder
from project.state.weights.weights import Weights, WeightsError


def open_weights(path: str | Path) -> Weights:
    """Opens weights; it reads headers and no tensor.

    Raises:
        WeightsError: with everything that is wrong.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise WeightsError([f"{folder}: is no folder; relative paths are from {Path.cwd()}"])
    if (folder / "config.json").is_file():
        return MixtralFolder(folder)
    if (folder / FOLDER).is_dir() and (folder := checkpoint_at(of_run := folder)) == of_run:
        raise WeightsError([f"{folder / FOLDER}: has no whole checkpoint yet"])
    if not (folder / "manifest.json").is_file():
        kinds = "no checkpoint (manifest.json), no run (checkpoints/) and nothing of Hugging Face's (config.json)"
        raise WeightsError([f"{folder}: is {kinds}"])
    from project.state.weights.checkpoint import CheckpointWeights  # imports torch

    return CheckpointWeights(folder)
