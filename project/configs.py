"""The folder of the configuration files, which Hydra's config groups and the claims of documents are read from."""

from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
