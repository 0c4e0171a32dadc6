"""Sweep folders as sweeps leave them, written without a sweep."""

import io
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console, RenderableType

from project.run_folder import write_summary

LAYOUT = {
    **{"pp": 2, "dp": 1, "tp": 2, "ep": 2, "etp": 1, "world_size": 4},
    **{"schedule": "1F1B", "microbatches": 4, "virtual_stages": 1},
}
FINISHED: dict[str, Any] = {
    "status": "completed",
    "steps": 4,
    "step_time_s": 0.3,
    "tokens_per_second": 1000.0,
    "peak_memory_bytes_per_rank": [5, 7, 6, 6],
    "communication": {"tp": {"all_gather": {"calls": 2, "bytes": 10}}, "pp": {"send": {"calls": 1, "bytes": 20}}},
    "train_loss_last": 6.5,
    "planned": {"step_time_s": 0.2, "communication": {"tp": {"all_gather": {"calls": 2, "bytes": 12}}}},
}


def finished_job(folder: Path, *overrides: str, layout: dict[str, Any] | None = None, **entries: Any) -> None:
    _overrides(folder, overrides)
    write_summary(folder, FINISHED | {"layout": LAYOUT | (layout or {})} | entries)


def refused_job(folder: Path, *overrides: str, error: str) -> None:
    _overrides(folder, overrides)
    write_summary(folder, {"status": "failed", "error": error})


def printed(what: RenderableType) -> str:
    screen = io.StringIO()
    Console(file=screen, width=80).print(what)
    return screen.getvalue()


def _overrides(folder: Path, overrides: tuple[str, ...]) -> None:
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(list(overrides), folder / ".hydra/overrides.yaml")
