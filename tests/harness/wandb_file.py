"""An offline run's `.wandb` file, read by wandb's own reader."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import wandb

CORE = Path(wandb.__file__).parent / "bin" / "wandb-core"


def records(file: Path) -> list[dict[str, Any]]:
    """The file's records in order. Raises an error if wandb's reader rejects the file."""
    command = [str(CORE), "leet", "inspect", "-no-observability", "-json", "-run-file", str(file)]
    environment = {**os.environ, "HOME": str(file.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_type(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in found if record["type"] == kind]


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The run's summary after the last record; nested keys are joined with dots."""
    whole: dict[str, Any] = {}
    for record in of_type(found, "summary"):
        whole |= record.get("update", {})
    return whole
