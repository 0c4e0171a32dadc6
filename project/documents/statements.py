"""Markdown as statements: what is said in a line, under which heading, and in which column of a table."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from project.spec.untrusted import Unreadable, read_text

LARGEST = 1 << 20  # bytes; a book has fewer
WRAPPED = 72  # characters: a line of prose that is as long and ends without a stop goes on in the next
MOST_WRAPPED = 12  # lines of a sentence
LONGEST_LINE = 4_000  # characters
SUFFIXES = (".md", ".markdown", ".txt")
_SAME = str.maketrans("\u00d7\u2715\u00f7\u2013\u2014\u2212\u2248\u2192\u00a0", "xx/---~> ")


@dataclass(frozen=True)
class Statement:
    """`line` counts from 1. `label` is a table's first cell or the bold term before a colon, `text` what is said of it,
    `words` both, in lower case, with one spelling of signs and numbers. `row` is True for a table's row. `lines` is the
    number of lines, more than one for wrapped prose."""

    line: int
    section: tuple[str, ...]
    label: str
    text: str
    row: bool = False
    lines: int = 1

    @property
    def said(self) -> str:
        """The label and what is said of it, as they stand."""
        return f"{self.label}: {self.text}" if self.label else self.text

    @property
    def words(self) -> str:
        return plain(self.said)

    @property
    def heading(self) -> str:
        return " / ".join(self.section)


def plain(text: str) -> str:
    """Lower case, ASCII signs, and numbers without thousands separators."""
    text = re.sub(r"[*_`]{1,3}(?=\S)|(?<=\S)[*`]{1,3}", lambda mark: "_" if mark[0] == "_" else "", text)
    text = re.sub(r"\s+", " ", text.translate(_SAME).lower())
    return re.sub(r"(?<![\d.])\d{1,3}(?:[,'\u202f]\d{3})+(?![\d])", lambda one: re.sub(r"\D", "", one[0]), text)


def is_document(name: object) -> bool:
    """True if `name` is a text's path by its suffix, and not that of a YAML file of claims."""
    path = Path(str(name)).expanduser()
    if not isinstance(name, str) or path.suffix.lower() not in SUFFIXES:
        return False
    try:
        return not re.search(r"^claims:", read_text(path, largest=LARGEST), re.MULTILINE)
    except Unreadable:
        return True


def read_markdown(path: Path) -> str:
    """The document's text.

    Raises:
        Unreadable: for what is no text of bounded size, or empty.
    """
    text = read_text(path, largest=LARGEST)
    if "\x00" in text or sum(ord(sign) < 32 and sign not in "\t\n\r\f" for sign in text) > len(text) // 100:
        raise Unreadable(path, "is binary, no Markdown")
    if not text.strip():
        raise Unreadable(path, "is empty")
    if max(map(len, text.splitlines())) > LONGEST_LINE:
        raise Unreadable(path, f"has a line of more than {LONGEST_LINE} characters, and is no document")
    return text


def statements(text: str) -> list[Statement]:
    """All statements in their order; headings are statements too."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return list(_statements(tokens))


def lines_of(text: str) -> list[str]:
    """The lines as Markdown counts them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _statements(tokens: list[Token]) -> Iterator[Statement]:
    section: list[tuple[int, str]] = []
    header: list[str] = []
    cells: list[str] | None = None
    at = 0
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            header = []
        elif token.type == "tr_open":
            cells, at = [], (token.map or [at])[0]
        elif token.type == "tr_close" and cells is not None:
            if header:
                yield from _row(cells, header, at, _names(section))
            else:
                header = cells
            cells = None
        elif token.type == "inline" and cells is not None:
            cells.append(token.content)
        elif token.type == "inline":
            at = (token.map or [at])[0]
            opened = tokens[place - 1]
            if opened.type == "heading_open":
                depth = int(opened.tag[1:])
                section = [*(one for one in section if one[0] < depth), (depth, token.content)]
            for offset, lines in _sentences(token.content.split("\n")):
                yield _statement(" ".join(lines), at + offset, _names(section), len(lines))
        elif token.type in ("fence", "code_block", "html_block"):
            at = (token.map or [at])[0] + (token.type == "fence")
            for offset, said in enumerate(token.content.splitlines()):
                if (visible := re.sub(r"<[^>]*>", " ", said)).strip():
                    yield _statement(visible.strip(), at + offset, _names(section))


def _sentences(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The lines of a paragraph, those of wrapped prose together, with the place of the first."""
    begun, together = 0, list[str]()
    for place, line in enumerate(lines):
        together.append(line)
        wrapped = (
            len(together) < MOST_WRAPPED and len(line) >= WRAPPED and line[-1] not in ".;:!?" and place + 1 < len(lines)
        )
        if not wrapped or re.match(r"\W*(?:\*\*|[\u2705\u2713\u2611\u274c\u2717*-])", lines[place + 1]):
            yield begun, together
            begun, together = place + 1, []


def _names(section: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(name for _, name in section)


def _statement(said: str, at: int, section: tuple[str, ...], lines: int = 1) -> Statement:
    bold = re.match(r"\s*(?:[✅✓☑❌✗]\s*)?\*\*(.+?)\*\*\s*:?\s*(.*)$", said)
    if bold and (bold[1].endswith(":") or ":" in said[: bold.end(1) + 4]):
        return Statement(at + 1, section, bold[1].rstrip(": "), bold[2].lstrip(": "), lines=lines)
    return Statement(at + 1, section, "", said.strip(), lines=lines)


def _row(cells: list[str], header: list[str], at: int, section: tuple[str, ...]) -> Iterator[Statement]:
    """A row with one value is `label: value`, with the column's unit; one with more names each column."""
    cells = [cell.strip(" *") for cell in cells]
    filled = [(name.strip(" *"), cell) for name, cell in zip(header[1:], cells[1:], strict=False) if cell]
    said = [_with_unit(name, cell) for name, cell in filled]
    if len(said) > 1:
        said = [f"{name} {cell}" for (name, _), cell in zip(filled, said, strict=True)]
    yield Statement(at + 1, section, cells[0] if cells else "", ", ".join(said), row=True)


def _with_unit(name: str, cell: str) -> str:
    unit = re.search(r"\b([KMGT]i?B|GFLOPS|TFLOPS|ms|%)(?:\b|$)|%", name, re.IGNORECASE)
    bare = re.fullmatch(r"[~<>≤≥≈]*\s*[\d.,]+", cell)
    return f"{cell} {unit[0]}" if unit and bare else cell
