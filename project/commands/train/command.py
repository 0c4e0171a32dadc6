"""`project/train.py` as a record: trains a model under a layout."""

from project.command_line.command import Command
from project.commands.train import checks

TRAIN = Command(
    name="train",
    faults=checks.faults,
    warnings=checks.warnings,
    purpose="Trains a model under a parallel layout.",
    example="+experiment=tp4_ep4_pp4 model=small trainer.max_steps=60",
    groups=(
        *("model", "parallel", "experiment", "data", "training", "trainer"),
        *("callbacks", "logger", "debug", "verbosity", "sweep"),
    ),
    paths=("resume", "init_from"),
)
