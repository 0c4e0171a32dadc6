"""Implementation notes as claims about the configuration: what a note names, and whether the configuration has it."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from project.documents.facts import Fact
from project.documents.statements import statements

Config = Mapping[str, Any]
_NOTES: tuple[tuple[str, str, Callable[[Config], tuple[str, bool]]], ...] = (
    (r"column[-/ ]row", "tensor parallelism", lambda c: ("column-row, always", True)),
    (
        r"all-?to-?all",
        "expert routing",
        lambda c: (f"all-to-all over ep {c['parallel']['ep']}", c["parallel"]["ep"] > 1),
    ),
    (
        r"(?:gradient|activation) checkpointing|\brecomput",
        "parallel.recompute",
        lambda c: (str(c["parallel"]["recompute"]), c["parallel"]["recompute"] != "none"),
    ),
    (
        r"mixed precision|fp16/bf16|bf16/fp16",
        "trainer.precision",
        lambda c: (str(c["trainer"]["precision"]), "32" not in str(c["trainer"]["precision"])),
    ),
    (r"\badam", "optimizer", lambda c: ("AdamW, two moments", True)),
    (r"sequence parallel|\bsp\b", "sequence parallelism", lambda c: ("the residual stream is split over tp", True)),
)


def notes(text: str, config: Config) -> Iterator[dict[str, Any]]:
    for statement in statements(text):
        for pattern, about, judge in _NOTES:
            if re.search(pattern, statement.words):
                found, holds = judge(config)
                yield _entry(statement.line, statement.text, about, "", found, holds)


def settings_checked(facts: list[Fact], config: Config) -> Iterator[dict[str, Any]]:
    """Each value that the document gives, against the configuration's: what is typed may differ."""
    for fact in facts:
        section, dot, key = fact.key.partition(".")
        if dot and key in config.get(section, {}):
            found = config[section][key]
            yield _entry(fact.line, fact.text, fact.key, fact.value, found, found == fact.value)


def _entry(line: int, text: str, about: str, said: Any, found: Any, holds: bool) -> dict[str, Any]:
    verdict = "holds" if holds else "fails"
    return {"line": line, "text": text, "about": about, "said": said, "found": found, "verdict": verdict}
