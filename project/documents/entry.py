"""The entry `document` of `plan.json` has what a document says besides its claims."""

from typing import Any

from project.documents.notes import Config, notes, settings_checked
from project.documents.rank_map import differences
from project.documents.reading import Reading
from project.documents.settings import settings_of
from project.documents.statements import Statement


def document_entry(read: Reading, config: Config, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """`ranks` are those of `plan.json`, empty where the layout is not legal."""
    found, noted = settings_of(read), list(notes(read.text, config))
    understood = {note["line"] for note in noted}
    return {
        "path": str(read.path),
        "settings": list(settings_checked(read.facts, config)),
        "notes": noted,
        "rank_map": _rank_map(read, ranks),
        "contradictions": read.contradictions,
        "assumed": [{"key": key, "value": value, "why": why} for key, (value, why) in found.assumed.items()],
        "open": found.open,
        "unsupported": found.unsupported,
        "declined": _listed(read.declined),
        "not_understood": _listed([of for of in read.not_understood if of.line not in understood]),
    }


def _rank_map(read: Reading, ranks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries = []
    for place in read.places:
        if not ranks:
            verdict, found = "unknown", ""
        elif place.gpu >= len(ranks):
            verdict, found = "fails", f"there are {len(ranks)} ranks"
        else:
            found = "; ".join(differences(place, ranks[place.gpu]))
            verdict = "fails" if found else "holds"
        entries.append({"line": place.line, "text": place.text, "found": found, "verdict": verdict})
    return entries


def _listed(statements: list[Statement]) -> list[dict[str, Any]]:
    return [{"line": of.line, "text": of.said} for of in statements]
