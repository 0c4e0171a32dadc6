"""What `--help` says of a script and of the groups that it is configured by, within a screen: each group's choices and
what it is for. It ends the help, because a terminal shows the end.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

GROUPS = {
    "model": "the transformer's sizes; moe_8x4 is the strategy document's",
    "parallel": "the layout: degrees, schedule, microbatches",
    "experiment": "a named choice of the groups around it",
    "data": "the corpus, and how much of it is in a batch",
    "training": "the optimizer and its schedule",
    "trainer": "Lightning's Trainer: steps, precision, validation",
    "callbacks": "what watches a run, one concern each",
    "logger": "where metrics go beside metrics.csv",
    "cluster": "the machines that a plan is for",
    "debug": "one batch again and again, a profile, a record of memory",
    "verbosity": "what is shown on the terminal",
    "sweep": "many jobs: all legal layouts, schedules ...; Optuna's; SLURM's",
}
SCRIPTS = {
    "train": (
        "Trains a model under a parallel layout.",
        "+experiment=tp4_ep4_pp4 model=small trainer.max_steps=60",
        (
            *("model", "parallel", "experiment", "data", "training", "trainer"),
            *("callbacks", "logger", "debug", "verbosity", "sweep"),
        ),
    ),
    "plan": (
        "Derives the strategy document of a layout, and checks its claims.",
        "+experiment=tp4_ep4_pp4 cluster=h100_2x8",
        ("model", "parallel", "experiment", "data", "trainer", "cluster"),
    ),
    "generate": (
        "Continues a text with a trained model.",
        'checkpoint=outputs/train/... prompt="def "',
        ("parallel",),
    ),
}
ADDED = ("experiment", "sweep")
"""Have no default, and are chosen with a plus."""


def group_help(script: str) -> str:
    """80 columns wide."""
    purpose, example, groups = SCRIPTS[script]
    lines = [purpose, "", f"python project/{script}.py [GROUP=CHOICE ...] [KEY=VALUE ...]", f"  as in {example}", ""]
    for group in groups:
        choices = ", ".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))
        plus = "+" if group in ADDED else ""
        lines += textwrap.wrap(f"{plus}{group}: {choices}", 78, initial_indent="  ", subsequent_indent="      ")
        lines.append(f"      {GROUPS[group]}")
    lines += ["", "All keys: --cfg job (one group's: -p GROUP). Hydra's own flags: --hydra-help"]
    return "\n".join(lines)
