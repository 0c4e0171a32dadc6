"""`project/plan.py`: a plan, a search, or a comparison, on the terminal and in the run folder."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.command_line.check import check_job
from project.command_line.refusal import refuse
from project.commands.plan.command import PLAN, nothing_fits
from project.commands.plan.of_document import falls_short, give_back, unplanned
from project.commands.plan.of_document import sheets as sheets_of_document
from project.documents.statements import is_document
from project.planner.config import Config, cluster_of, plan_of, step_of, write_json
from project.planner.document.comparison import compare
from project.planner.document.performance_sheets import claims_sheet
from project.planner.document.search_sheets import COMMANDS, search_sheets
from project.planner.document.sheets import sheets
from project.planner.search.outcome import Outcome, outcome_entries, search_all
from project.preflight.layout import model_and_layout_faults
from project.run_folder import read_summary, write_atomically

PLANS_OWN = (
    "search",
    "strict",
    "objective",
    "calibrate",
    "document",
    "compare",
    "cluster",
    "parallel",
    "trainer.precision",
)


def run_plan(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> None:
    """`folder` is the run's; `overrides` are those of the command line."""
    check_job(cfg, PLAN, os.environ)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    if config["compare"]:
        print_comparison(Path(config["compare"]))
    elif config["calibrate"]:
        from project.calibration.run import calibrate  # which imports torch

        calibrate(folder, os.environ)
    elif config["search"]:
        prefix = train_command(overrides, step_of(config).precision)
        found = search_all(step_of(config), cluster_of(config), config["objective"], prefix)
        if not found.best:
            refuse([nothing_fits(found)], os.environ)
        print_search(found, folder)
    elif is_document(config["document"]):
        plan_document(config, folder)
    else:
        plan(config, folder)


def print_comparison(folder: Path) -> None:
    from rich.console import Console

    summary = read_summary(folder)
    assert summary is not None, "refused by the checks"
    Console().print(compare(summary).table())


def print_search(what: Outcome, folder: Path) -> None:
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
    write_atomically(folder / "search.json", json.dumps(outcome_entries(what), allow_nan=False) + "\n")
    console.print(f"run folder: {folder}", soft_wrap=True)


def plan_document(config: Config, folder: Path) -> None:
    """A strategy document's plan and claims; the claims alone where its layout is not legal."""
    from rich.console import Console

    if faults := model_and_layout_faults(config):
        content = unplanned(config, faults)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "plan.json", json.dumps(content, allow_nan=False) + "\n")
        told = [claims_sheet(content["claims"])]
        Console().print("No plan was made, for the layout is not legal:", *map(str, faults), sep="\n", markup=False)
        Console().print(told[0].table())
        write_atomically(folder / "plan.md", "# No plan: the layout is not legal\n\n" + told[0].markdown())
    else:
        plan(config, folder)
        content = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    for sheet in sheets_of_document(content["document"]):
        Console().print(sheet.table())
    give_back(config, content, folder)
    if config["strict"] and (short := falls_short(content)):
        raise SystemExit(f"strict: {len(short)} of the document's sentences do not hold")


def plan(config: Config, folder: Path) -> None:
    from rich.console import Console

    found = plan_of(config)
    console = Console()
    for sheet in sheets(found):
        console.print(sheet.table())
    write_json(found, folder)
    heading = f"# Plan: {found.derived.step.layout}, on {found.derived.cluster.name}\n\n"
    write_atomically(folder / "plan.md", heading + "\n".join(sheet.markdown() for sheet in sheets(found, whole=True)))
    console.print(f"run folder: {folder}", soft_wrap=True)


def train_command(overrides: Sequence[str], precision: str) -> str:
    """The command line of `project/train.py`, quoted for a shell: the plan's overrides that training has too, and the
    precision, which is that of the cluster wherever the command is typed."""
    keys = [(override.lstrip("+~").partition("=")[0], override) for override in overrides]
    kept = [
        override for key, override in keys if key not in PLANS_OWN and not key.startswith(("cluster.", "parallel."))
    ]
    return shlex.join(["python", "project/train.py", *kept, f"trainer.precision={precision}"])
