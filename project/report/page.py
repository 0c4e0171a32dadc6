"""The page: one file that holds its figures, their script and plotly, and asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from plotly.offline import get_plotlyjs

from project.report.section import Section

HERE = Path(__file__).parent
# Nothing is loaded from anywhere.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(title: str, header: str, sections: Sequence[Section]) -> str:
    """`header` is HTML; what is said of it and of the sections is escaped by whoever made it."""
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
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
