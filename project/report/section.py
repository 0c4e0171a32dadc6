"""A part of the page: a heading, what to look at, a figure, and its numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go


@dataclass(frozen=True)
class Table:
    """Cells are text, and escaped."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self) -> str:
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.header)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


@dataclass(frozen=True)
class Choice:
    """Variants of a figure, by label; the page shows `first` first. A slider where their order is that of time."""

    label: str
    figures: dict[str, go.Figure]
    first: int = 0
    slider: bool = False


@dataclass(frozen=True)
class Section:
    """Without a figure, a table or a body the page says `absent` instead."""

    key: str
    title: str
    sentence: str
    figure: go.Figure | None = None
    choice: Choice | None = None
    table: Table | None = None
    body: str = ""
    absent: str = "Not recorded in this run."
    wide: bool = False
    numbers: Table | None = None

    @property
    def shown(self) -> go.Figure | None:
        return list(self.choice.figures.values())[self.choice.first] if self.choice else self.figure

    def html(self) -> str:
        parts = [f"<h2>{escape(self.title)}</h2>"]
        there = bool(self.shown or self.table or self.body)
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
        parts.append(self.table.html() if self.table else "")
        parts.append(self.body)
        if not there:
            parts.append(f'<p class="absent">{escape(self.absent)}</p>')
        if self.numbers and self.numbers.rows:
            parts.append(f"<details><summary>The numbers</summary>{self.numbers.html()}</details>")
        return f'<section id="{self.key}" class="{"wide" if self.wide else ""}">{"".join(parts)}</section>'

    def data(self) -> dict[str, Any] | None:
        """For the page's script."""
        if self.shown is None:
            return None
        variants = [json.loads(figure.to_json()) for figure in self.choice.figures.values()] if self.choice else []
        return {"key": self.key, "shown": json.loads(self.shown.to_json()), "variants": variants}


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
