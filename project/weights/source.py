"""Which kind of weights a path leads to."""

from __future__ import annotations

from pathlib import Path

from project.weights.hf_folder import CONFIG, MixtralFolder
from project.weights.weights import Weights, WeightsError


def open_weights(path: str | Path) -> Weights:
    """Reads headers, no tensor.

    Raises:
        WeightsError: with all that is wrong.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise WeightsError([f"{folder}: is no folder; relative paths are from {Path.cwd()}"])
    if (folder / CONFIG).is_file():
        return MixtralFolder(folder)
    raise WeightsError([f"{folder}: is no folder of Hugging Face's, which has a {CONFIG}"])
