"""One plan: from a checked configuration to the document, on the terminal and in the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from project.planner.document.claims import check, read_claims
from project.planner.document.compare import compare
from project.planner.document.derive import Derived, derive
from project.planner.document.document import sheets
from project.planner.document.plan_file import as_json, planned
from project.planner.document.search_sheets import COMMANDS, search_sheets
from project.planner.machine.cluster import Cluster
from project.planner.machine.cluster_file import read_cluster
from project.planner.memory.memory import peak
from project.planner.search.candidate import Candidate, rank_by
from project.planner.search.fewer import fewer
from project.planner.search.search import search
from project.planner.search.searched import Searched, as_entries
from project.planner.search.sensitivity import turns
from project.planner.search.settle import settled_seconds
from project.planner.step import Step
from project.run_folder import read_summary, write_atomically
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

CLAIMS = Path(__file__).resolve().parent.parent.parent / "configs" / "claims"
NEAR_THE_BEST = 300  # candidates that are ranked again at the ends of the stated intervals
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


def searched(config: Config, prefix: str) -> Searched:
    """`prefix` is the command that a layout's overrides are added to. Where nothing fits, `best` is empty, and
    `nearest` what holds least."""
    step, cluster, objective = step_of(config), cluster_of(config), config["objective"]
    found = search(step, cluster, objective=objective)
    less = fewer(step, cluster, found, objective) if found.best else []
    nearest = [] if found.best else search(step, cluster, objective="memory", room=float("inf")).best
    others = [smaller for _, smaller in less] if objective == "cost" else []
    best = sorted(
        (one for there in (found, *others) for one in there.best),
        key=lambda one: rank_by(one, objective),
    )
    return Searched(
        cluster,
        objective,
        asked=Candidate(
            step.layout,
            settled_seconds(step, step.layout, cluster),
            peak(step, int(cluster.reserved_bytes)),
            settled=True,
        ),
        found=found,
        best=best,
        nearest=nearest[0] if nearest else None,
        fewer=less,
        turns=turns(best[:NEAR_THE_BEST], step, cluster, objective),
        tokens=step.batch * step.seq_len * step.accumulate,
        prefix=prefix,
    )


def print_search(what: Searched, folder: Path) -> None:
    from rich.console import Console

    read = list(search_sheets(what))
    console = Console()
    for sheet in read:
        if sheet.title == COMMANDS:  # to be copied: no cell may cut them
            console.print(sheet.title, style="italic")
            for place, line in sheet.rows:
                console.print(f"{place} {line}", soft_wrap=True, highlight=False)
        else:
            console.print(sheet.table())
    folder.mkdir(parents=True, exist_ok=True)
    heading = f"# Search: {what.cluster.gpus} GPUs of {what.cluster.name}\n\n"
    write_atomically(folder / "search.md", heading + "\n".join(sheet.markdown() for sheet in read))
    write_atomically(folder / "search.json", json.dumps(as_entries(what), allow_nan=False) + "\n")
    console.print(f"run folder: {folder}", soft_wrap=True)


def plan(config: Config, folder: Path) -> None:
    from rich.console import Console

    found = derived(config)
    console = Console()
    for sheet in sheets(found):
        console.print(sheet.table())
    write_json(found, folder)
    layout = found.step.layout
    heading = f"# Plan: {layout}, on {found.cluster.name}\n\n"
    write_atomically(folder / "plan.md", heading + "\n".join(sheet.markdown() for sheet in sheets(found, whole=True)))
    console.print(f"run folder: {folder}", soft_wrap=True)
