"""The strategy document's claims, and what became of them."""

from __future__ import annotations

from html import escape
from typing import Any

from project.report.run import Run

VERDICTS = {"holds": "✓ holds", "fails": "✗ fails", "unknown": "? unknown"}


def html(run: Run) -> str:
    """Empty where nothing is claimed."""
    claims: list[dict[str, Any]] = run.plan.get("claims") or []
    if not claims:
        return ""
    rows = "".join(row(claim) for claim in claims)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("claim", "claimed", "found", "verdict", "derivation"))
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def row(claim: dict[str, Any]) -> str:
    verdict = str(claim.get("verdict") or "unknown")
    cells = [claim.get("claim"), claim.get("claimed"), claim.get("found")]
    told = "".join(f"<td>{escape(said(cell))}</td>" for cell in cells)
    words = VERDICTS.get(verdict, verdict)
    why = str(claim.get("derivation") or "") + (f" ({claim['by']})" if claim.get("by") else "")
    return f'<tr>{told}<td class="{escape(verdict)}">{escape(words)}</td><td>{escape(why)}</td></tr>'


def said(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
