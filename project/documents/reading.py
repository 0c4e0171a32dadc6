"""A document, read: what it says, what it claims, where it contradicts itself, and what was not understood."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project.documents.claims import claims_of, is_inference
from project.documents.contradictions import contradictions
from project.documents.facts import Fact, facts_of
from project.documents.rank_map import Place, rank_map
from project.documents.statements import Statement, read_markdown, statements
from project.spec.untrusted import Unreadable

MOST_STATEMENTS = 20_000


@dataclass(frozen=True)
class Reading:
    """`facts` are in the document's order; `declined` are figures that no plan of training has; `not_understood` are
    the statements that gave nothing, headings aside."""

    path: Path
    text: str
    facts: list[Fact]
    claims: list[dict[str, Any]]
    places: list[Place]
    contradictions: list[str]
    declined: list[Statement]
    not_understood: list[Statement]

    @property
    def said(self) -> dict[str, Any]:
        """The first value of each key."""
        return {fact.key: fact.value for fact in reversed(self.facts)}


def read_document(path: Path) -> Reading:
    """Raises `Unreadable` for a file that is no text of bounded size, and as `reading`."""
    return reading(path, read_markdown(path))


def reading(path: Path, text: str) -> Reading:
    """Raises `Unreadable` for more statements than are read: none is dropped."""
    every = statements(text)
    if len(every) > MOST_STATEMENTS:
        raise Unreadable(path, f"says {len(every):,} things, more than the {MOST_STATEMENTS:,} that are read")
    facts: list[Fact] = []
    claims: dict[tuple[Any, ...], dict[str, Any]] = {}
    declined, unread = [], []
    places = rank_map(every)
    mapped = {place.line for place in places}
    for statement in every:
        if statement.line in mapped:
            continue
        heading = bool(statement.section) and statement.text == statement.section[-1]
        if is_inference(statement) and not heading:
            declined.append(statement)
            continue
        found, claimed = facts_of(statement), claims_of(statement)
        facts += found
        for claim in claimed:
            claims.setdefault((claim["quantity"], claim["relation"], claim["claimed"]), {**claim, "lines": []})
            claims[claim["quantity"], claim["relation"], claim["claimed"]]["lines"] += range(
                claim["line"], claim["line"] + statement.lines
            )
        introduces = statement.label and not statement.text
        if not (found or claimed or heading or introduces) and re.search(r"\w", statement.words):
            unread.append(statement)
    listed = list(claims.values())
    return Reading(path, text, facts, listed, places, contradictions(every, facts, listed, places), declined, unread)
