"""What `--help` says of a command and of the groups that it is configured by, within a screen: each group's choices and
what it is for. It ends the help, because a terminal shows the end.
"""

from __future__ import annotations

import textwrap

from project.command_line.command import Command
from project.configs import CONFIGS

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
ADDED = ("experiment", "sweep")
"""Groups without a default, which are chosen with a plus."""


def command_help(command: Command) -> str:
    """80 columns wide."""
    usage = f"python project/{command.name}.py [GROUP=CHOICE ...] [KEY=VALUE ...]"
    lines = [command.purpose, "", usage, f"  as in {command.example}", ""]
    for group in command.groups:
        choices = ", ".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))
        plus = "+" if group in ADDED else ""
        lines += textwrap.wrap(f"{plus}{group}: {choices}", 78, initial_indent="  ", subsequent_indent="      ")
        lines.append(f"      {GROUPS[group]}")
    lines += ["", "All keys: --cfg job (one group's: -p GROUP). Hydra's own flags: --hydra-help"]
    return "\n".join(lines)
