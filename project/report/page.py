"""The page and its parts: one HTML file that holds its figures, their script and plotly, and asks the network for
nothing."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from project.report.escaped import escape

HERE = Path(__file__).parent
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""Content security policy: the browser loads nothing from anywhere."""


class Tile(NamedTuple):
    """A number in the page's header, with a note under it."""

    name: str
    value: str
    beside: str


@dataclass(frozen=True)
class Choice:
    """Variants of one figure by label, of which the page shows number `first` at first. The reader chooses from a
    list, or with a slider where the variants follow one another in time."""

    label: str
    figures: dict[str, go.Figure]
    first: int = 0
    slider: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a sentence that says what to look at, a figure or HTML, and the figure's
    numbers. With neither figure nor `body` (HTML) the page says `absent` instead."""

    key: str
    title: str
    sentence: str
    figure: go.Figure | None = None
    choice: Choice | None = None
    body: str = ""
    absent: str = "Not recorded in this run."
    wide: bool = False
    numbers: str = ""

    @property
    def shown(self) -> go.Figure | None:
        return list(self.choice.figures.values())[self.choice.first] if self.choice else self.figure

    def html(self) -> str:
        parts = [f"<h2>{escape(self.title)}</h2>"]
        there = bool(self.shown or self.body)
        parts.append(f'<p class="look">{escape(self.sentence)}</p>' if there else "")
        if self.choice and len(self.choice.figures) > 1:
            parts.append(control(self.key, self.choice))
        if self.shown:
            style = f"height:{int(self.shown.layout.height or 400)}px"
            meta = self.shown.layout.meta
            if isinstance(meta, dict) and "least_width" in meta:
                style += f";min-width:{meta['least_width']}px"
            parts.append(
                f'<div class="scroll"><div class="figure" id="figure-{self.key}" style="{style}" role="img" '
                f'aria-label="{escape(self.title)}: {escape(self.sentence)}"></div></div>'
            )
        parts.append(self.body)
        if not there:
            parts.append(f'<p class="absent">{escape(self.absent)}</p>')
        if self.numbers:
            parts.append(f"<details><summary>The numbers</summary>{self.numbers}</details>")
        return f'<section id="{self.key}" class="{"wide" if self.wide else ""}">{"".join(parts)}</section>'

    def data(self) -> dict[str, Any] | None:
        """The figure and its variants as the page's script reads them."""
        if self.shown is None:
            return None
        variants = [json.loads(figure.to_json()) for figure in self.choice.figures.values()] if self.choice else []
        return {"key": self.key, "shown": json.loads(self.shown.to_json()), "variants": variants}


def page(title: str, header: str, sections: Sequence[Section]) -> str:
    """The whole file. `header` is HTML; the caller escapes the text in it, and the sections escape theirs."""
    data = [one for one in (section.data() for section in sections) if one is not None]
    links = "".join(f'<li><a href="#{section.key}">{escape(section.title)}</a></li>' for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{read("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the figures</a>
<header>{header}</header>
<nav aria-label="Figures"><ul>{links}</ul></nav>
<main id="main">
{"".join(section.html() for section in sections)}
</main>
<script type="application/json" id="figures">{embedded(data)}</script>
<script>{get_plotlyjs()}</script>
<script>{read("page.js")}</script>
</body>
</html>
"""


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def embedded(data: object) -> str:
    """JSON that cannot end the HTML element around it."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def tiles(figures: Iterable[Tile]) -> str:
    each = "".join(
        f'<div class="tile"><dt>{escape(one.name)}</dt><dd class="value">{escape(one.value)}</dd>'
        f'<dd class="beside">{escape(one.beside)}</dd></div>'
        for one in figures
    )
    return f'<dl class="tiles">{each}</dl>'


def table(header: Iterable[str], rows: Sequence[Iterable[str]], kind: str = "") -> str:
    """An HTML table, or nothing without rows. The header is text; cells are HTML with their `<td>`, see `cells`."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    named = f' class="{kind}"' if kind else ""
    return f'<div class="table"><table{named}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cells(texts: Iterable[str], columns: Iterable[str] = ()) -> list[str]:
    """Table cells; `columns` are the names that they show where the table has no room for its header."""
    named = [f' data-column="{escape(name)}"' for name in columns]
    return [f"<td{name}>{escape(text)}</td>" for text, name in zip_longest(texts, named, fillvalue="")]


def control(key: str, choice: Choice) -> str:
    labels, name = list(choice.figures), f"choice-{key}"
    if choice.slider:
        return (
            f'<p class="control"><label for="{name}">{escape(choice.label)}</label> '
            f'<input type="range" id="{name}" min="0" max="{len(labels) - 1}" value="{choice.first}" step="1" '
            f'data-figure="{key}" data-labels="{escape(json.dumps(labels))}"> '
            f'<output for="{name}">{escape(labels[choice.first])}</output></p>'
        )
    options = "".join(
        f'<option value="{place}"{" selected" if place == choice.first else ""}>{escape(label)}</option>'
        for place, label in enumerate(labels)
    )
    return (
        f'<p class="control"><label for="{name}">{escape(choice.label)}</label> '
        f'<select id="{name}" data-figure="{key}">{options}</select></p>'
    )
