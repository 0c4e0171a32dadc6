"""`project/generate.py` as a record: continues a text with a trained model."""

from project.command_line.command import Command
from project.commands.generate import checks

GENERATE = Command(
    name="generate",
    faults=checks.faults,
    warnings=checks.warnings,
    purpose="Continues a text with a trained model.",
    example='checkpoint=outputs/train/... prompt="def "',
    groups=("parallel",),
    missing={"checkpoint": "a run's folder, a checkpoint, or a Hugging Face folder"},
    paths=("checkpoint", "tokenizer"),
    texts=("prompt",),
)
