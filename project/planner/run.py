"""One plan: from a checked configuration to the document, on the terminal and in the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from project.model.config import ModelConfig
from project.parallel.layout import ParallelLayout
from project.planner.claims import check, read_claims
from project.planner.cluster import Cluster, read_cluster
from project.planner.compare import compare
from project.planner.derive import Derived, derive
from project.planner.document import sheets
from project.planner.plan_file import as_json, planned
from project.planner.traffic import Step
from project.run_folder import read_summary, write_atomically

CLAIMS = Path(__file__).resolve().parent.parent.parent / "configs" / "claims"
Config = Mapping[str, Any]
"""A configuration as plain values, resolved."""


def step_of(config: Config) -> Step:
    """Of a configuration of `project/train.py` or `project/plan.py`."""
    trainer, data = config["trainer"], config["data"]
    return Step(
        _filled(ModelConfig, config["model"]),
        _filled(ParallelLayout, config["parallel"]),
        data["batch_size"],
        data["seq_len"],
        trainer["precision"],
        trainer["accumulate_grad_batches"],
    )


def _filled(cls: type, section: Config) -> Any:
    values = {key: value for key, value in section.items() if not key.startswith("_")}
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def cluster_of(config: Config) -> Cluster:
    return read_cluster(config["cluster"])


def claims_path(document: str) -> Path:
    """A word is the name of a file in configs/claims."""
    return Path(document) if document.endswith((".yaml", ".yml")) else CLAIMS / f"{document}.yaml"


def derived(config: Config) -> Derived:
    found = derive(step_of(config), cluster_of(config))
    if config.get("document"):
        found.claims.extend(check(read_claims(claims_path(config["document"])), found.quantities))
    return found


def write_json(found: Derived, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "plan.json", json.dumps(as_json(found), allow_nan=False) + "\n")


def plan_run(config: Config, folder: Path) -> dict[str, Any]:
    """Writes `plan.json` into a run's folder; the figures that its summary has too, under its names."""
    found = derived(config)
    write_json(found, folder)
    return planned(found)


def print_comparison(folder: Path) -> None:
    from rich.console import Console

    summary = read_summary(folder)
    assert summary is not None, "refused by preflight"
    Console().print(compare(summary).table())


def plan(config: Config, folder: Path) -> None:
    from rich.console import Console

    found = derived(config)
    read = list(sheets(found))
    console = Console()
    for sheet in read:
        console.print(sheet.table())
    write_json(found, folder)
    layout = found.step.layout
    heading = f"# Plan: {layout}, on {found.cluster.name}\n\n"
    write_atomically(folder / "plan.md", heading + "\n".join(sheet.markdown() for sheet in read))
    console.print(f"run folder: {folder}", soft_wrap=True)
