"""The claims of a strategy document with their verdicts, as a table of the page."""

from typing import Any

from project.planner.document.performance_sheets import quantity_text, verdict_text
from project.report.escaped import escape
from project.report.page import cells, table
from project.report.run import Run

SIGNS = {"holds": "✓", "fails": "✗", "unknown": "?"}


def claims(run: Run) -> str:
    """The strategy document's claims with their verdicts, as an HTML table; empty where nothing is claimed."""
    told = run.plan.get("claims") or ()
    header = ("claim", "claimed", "found", "verdict", "derivation")
    if any("line" in claim for claim in told):  # of a strategy document
        return table(("line", *header), [[*cells([line_of(claim)]), *claim_row(claim)] for claim in told])
    return table(header, [claim_row(claim) for claim in told])


def line_of(claim: dict[str, Any]) -> str:
    """The lines of the document that say so."""
    lines = claim.get("lines")
    return ", ".join(map(str, lines)) if isinstance(lines, list) else str(claim.get("line", ""))


def claim_row(claim: dict[str, Any]) -> list[str]:
    verdict = str(claim.get("verdict") or "unknown")
    said = [quantity_text(claim["quantity"], claim[name], claim["unit"]) for name in ("claimed", "found")]
    sign = f"{SIGNS.get(verdict, '?')} {verdict_text(claim)}"
    return [
        *cells([claim["claim"], *said]),
        f'<td class="{escape(verdict)}">{escape(sign)}</td>',
        *cells([str(claim.get("derivation") or "")]),
    ]
