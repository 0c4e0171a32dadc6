"""The document given back: `annotated.md`, each line as it was with verdicts as footnotes, and `corrected.md`, with our
numbers in the place of those that fail."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from project.documents.claims import UNITS
from project.documents.statements import lines_of, plain

_MARKS = {"holds": "holds", "fails": "fails", "unknown": "cannot be known"}
InWords = Callable[[str, float | None, str], str]
"""A quantity's name, value and unit as text."""


def annotated(text: str, claims: list[dict[str, Any]], document: Mapping[str, Any], in_words: InWords) -> str:
    """The document's lines, byte for byte, each followed by references to footnotes below. A code block and a table
    show their references as text."""
    notes: dict[int, list[str]] = defaultdict(list)
    for claim in claims:
        for place in claim["lines"]:
            notes[place].append(_verdict(claim, in_words))
    for entry in (*document["settings"], *document["notes"], *document["rank_map"]):
        if entry["verdict"] != "holds":
            what = (
                f"{entry.get('about', 'place')}: found {entry['found']}" if entry["found"] != "" else "no legal layout"
            )
            notes[entry["line"]].append(f"{_MARKS[entry['verdict']]}: {what}")
        else:
            notes[entry["line"]].append(f"holds: {entry.get('about', 'the rank map')}")
    for left in document["declined"]:
        notes[left["line"]].append("cannot be known: a figure of inference, and this is a plan of training")
    for left in document["not_understood"]:
        notes[left["line"]].append("not understood: nothing here that can be checked")
    lines: list[str] = []
    footnotes: list[str] = []
    for number, line in enumerate(lines_of(text), 1):
        told = list(dict.fromkeys(notes[number]))
        lines.append(_with_reference(line, number) if told else line)
        footnotes += [f"[^L{number}]: {'; '.join(_in_one_line(one) for one in told)}"] if told else []
    remarks = _remarks(document)
    return "\n".join([*lines, "", *remarks, *footnotes, ""])


def corrected(text: str, claims: list[dict[str, Any]], better: str, document: Mapping[str, Any]) -> str:
    """The document with the found value in the place of each claimed one that fails. `better` is the command of a
    layout that is faster, where there is one."""
    lines = lines_of(text)
    for claim in claims:
        if claim["verdict"] != "fails":
            continue
        for line in claim["lines"]:
            lines[line - 1] = _replaced(lines[line - 1], claim)
    best = ["", "## A faster layout", "", f"`{better}`"] if better else []
    return "\n".join([*lines, *best, "", *_remarks(document), ""])


def _verdict(claim: Mapping[str, Any], in_words: InWords) -> str:
    name, unit = claim["quantity"], claim["unit"]
    said, found = in_words(name, claim["claimed"], unit), in_words(name, claim["found"], unit)
    mark = _MARKS[claim["verdict"]]
    if claim["verdict"] == "fails":
        apart = in_words(name, abs(claim["difference"]), unit)
        mark += f" by {apart}" + (f" ({claim['by']:.3g}x)" if claim["by"] else "")
    return f"{mark}: {name} claimed {said}, found {found} ({claim['source']}: {claim['derivation']})"


def _with_reference(line: str, number: int) -> str:
    reference = f"[^L{number}]"
    cut = line.rstrip()
    if cut.endswith("|"):
        return f"{cut[:-1].rstrip()} {reference} |"
    return cut if re.fullmatch(r"\s*(?:```.*|[-=|: ]*)", line) else f"{cut} {reference}"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _remarks(document: Mapping[str, Any]) -> list[str]:
    sections = {
        "Contradictions": document["contradictions"],
        "Assumed": [f"{one['key']}={one['value']}: {one['why']}" for one in document["assumed"]],
        "Left open": [f"{key}= is not in the document, and the default is taken; give it" for key in document["open"]],
        "Not planned": document["unsupported"],
    }
    told = []
    for title, entries in sections.items():
        if entries:
            told += [f"## {title}", "", *(f"- {_in_one_line(entry)}" for entry in entries), ""]
    return told


def _replaced(line: str, claim: Mapping[str, Any]) -> str:
    """The line with the claimed number, in the document's own unit, after ours."""
    for hit in re.finditer(r"(\d[\d,']*(?:\.\d+)?)(\s*)([KMGTkmgt]i?B\b|%|[x\u00d7]|[A-Za-z]+)?", line):
        value = float(re.sub(r"[^\d.]", "", hit[1]))
        unit = plain(hit[3] or "")
        scale = UNITS.get(unit, 0.01 if unit == "%" else 1e-3 if unit == "ms" else 1.0)
        if unit.startswith("tflop"):
            scale = 1e12
        if abs(value * scale - claim["claimed"]) <= 1e-9 * abs(claim["claimed"]):
            ours = f"{claim['found'] / scale:.3g}{hit[2] + hit[3] if hit[3] else ''}"
            was = hit[0].rstrip()
            return f"{line[: hit.start()]}**{ours}** (not {was}){line[hit.start() + len(was) :]}"
    return line
