"""Map of the ranks: the stage, layers and experts of each, as in the strategy document's GPU assignment."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from project.planner.document.sheet import spans
from project.report.run import Run
from project.report.style import STAGES

ROW = 62  # pixels
MOST_RANKS_WITH_TEXT = 128


def figure(run: Run) -> go.Figure | None:
    """A column for each tensor-parallel rank, a row for each replica of each stage; as trained, else as planned."""
    ranks = placed(run)
    if not ranks:
        return None
    columns = sorted({rank["tp"] for rank in ranks})
    rows = sorted({(rank["pp"], rank["dp"]) for rank in ranks})
    at = {(rank["pp"], rank["dp"], rank["tp"]): rank for rank in ranks}
    cells = [[at.get((*row, column)) for column in columns] for row in rows]
    with_text = len(ranks) <= MOST_RANKS_WITH_TEXT
    chart = go.Figure(
        go.Heatmap(
            x=[f"tp {column}" for column in columns],
            y=[label(row, ranks) for row in rows],
            z=[[None if cell is None else cell["pp"] for cell in row] for row in cells],
            text=[["" if cell is None else words(cell) for cell in row] for row in cells],
            hovertext=[["" if cell is None else details(cell) for cell in row] for row in cells],
            texttemplate="%{text}" if with_text else None,
            hovertemplate="%{hovertext}<extra></extra>",
            colorscale=STAGES,
            zmin=0,
            zmax=max(1, max(rank["pp"] for rank in ranks)),
            showscale=False,
            xgap=4,
            ygap=4,
        )
    )
    chart.update_xaxes(side="top", showgrid=False, fixedrange=True)
    chart.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True, ticksuffix=" ")
    height = max(ROW * len(rows), 290) if with_text else 22 * len(rows)
    chart.update_layout(height=height + 50, margin={"l": 60, "r": 6, "t": 36, "b": 8})
    return chart


def placed(run: Run) -> list[dict[str, Any]]:
    """One record for each rank: its coordinates and parts as trained, else as planned, and its node, GPU and memory
    from the plan."""
    planned = {rank["rank"]: rank for rank in run.plan.get("ranks") or ()}
    trained = {rank["rank"]: rank for rank in run.summary.get("ranks") or ()}
    columns = run.layout.get("dp", 1) * run.layout.get("tp", 1)
    first = {rank: {"pp": rank // columns} for rank in planned}
    return [first.get(rank, {}) | planned.get(rank, {}) | trained.get(rank, {}) for rank in sorted(planned | trained)]


def label(row: tuple[int, int], ranks: Sequence[dict[str, Any]]) -> str:
    replicas = len({rank["dp"] for rank in ranks})
    return f"pp {row[0]}, dp {row[1]}" if replicas > 1 else f"pp {row[0]}"


def words(rank: dict[str, Any]) -> str:
    experts = f"<br>{counted('expert', rank['experts'])}" if rank.get("experts") else ""
    return f"<b>{rank['rank']}</b><br>{counted('layer', rank['layers'])}{experts}"


def details(rank: dict[str, Any]) -> str:
    lines = [f"<b>rank {rank['rank']}</b>: pp {rank['pp']}, dp {rank['dp']}, tp {rank['tp']}"]
    if rank.get("node") is not None:
        lines.append(f"node {rank['node']}, GPU {rank.get('gpu')}")
    lines += [counted("layer", rank["layers"]), counted("expert", rank.get("experts") or [])]
    lines.append(f"{rank['parameters']:,} parameters")
    return "<br>".join(lines)


def counted(what: str, numbers: list[int]) -> str:
    """The numbers as ranges: `layers 2-3`, `expert 1`, `experts 0, 2`."""
    if not numbers:
        return f"no {what}"
    return f"{what}{'s' if len(numbers) > 1 else ''} {spans(numbers)}"
