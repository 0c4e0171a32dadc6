"""`trace.json`: the recorded steps of all ranks in the Chrome trace event format, which Perfetto opens.

A process is a rank. Its first thread has the tiles of its steps, which fill each step: pipeline actions, named `2F3`
(stage 2, forward, microbatch 3), and the time between and around them. The second has collectives and messages, in
steps that the ledger counted; further threads have those that overlap others.

`metadata` has the layout and, for each step, its start, its duration, its bubble, and whether its collectives were
recorded. Format: "Trace Event Format" (Google, 2016). Times are microseconds since the first recorded step began.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from project.observe.ledger import CollectiveSpan
from project.observe.tiling import RankStep, Tile, bubble, tiled
from project.run_folder import layout_entry, write_atomically
from project.spec.layout import ParallelLayout

ACTIONS, COLLECTIVES = 0, 1


def write_trace(path: Path, steps: Sequence[Sequence[RankStep]], layout: ParallelLayout) -> dict[str, Any]:
    """Writes the trace of `steps`, each with the records of all ranks, and returns the entries of `metadata` for
    them."""
    origin = min(rank.start_ns for ranks in steps for rank in ranks)
    events = [*names(layout)]
    entries = {}
    for ranks in steps:
        step = ranks[0].step
        tiles_of = tiled(ranks, layout)
        for rank, (recorded, tiles) in enumerate(zip(ranks, tiles_of, strict=True)):
            events += [tile_event(tile, rank, step, origin) for tile in tiles]
            events += collective_events(recorded.collectives, rank, step, origin)
        entries[str(step)] = {
            "start_us": microseconds(ranks[0].start_ns - origin),
            "seconds": ranks[0].seconds,
            "bubble": bubble(ranks, tiles_of),
            "collectives": any(rank.collectives for rank in ranks),
        }
    metadata = {"layout": layout_entry(layout), "start_unix_ns": origin, "steps": entries}
    whole = {"traceEvents": events, "displayTimeUnit": "ms", "metadata": metadata}
    write_atomically(path, json.dumps(whole, separators=(",", ":"), allow_nan=False))
    return entries


def names(layout: ParallelLayout) -> Iterator[dict[str, Any]]:
    """The events that name and order processes and threads."""
    for rank in range(layout.world_size):
        place = layout.coordinates(rank)
        process = f"rank {rank} (pp {place.pp}, dp {place.dp}, tp {place.tp})"
        yield {"ph": "M", "name": "process_name", "pid": rank, "tid": ACTIONS, "args": {"name": process}}
        yield {"ph": "M", "name": "process_sort_index", "pid": rank, "tid": ACTIONS, "args": {"sort_index": rank}}
        for thread, name in ((ACTIONS, "step"), (COLLECTIVES, "collectives")):
            yield {"ph": "M", "name": "thread_name", "pid": rank, "tid": thread, "args": {"name": name}}


def tile_event(tile: Tile, rank: int, step: int, origin: int) -> dict[str, Any]:
    """The event of a tile. Validation belongs to no step."""
    args: dict[str, Any] = {} if tile.kind == "validation" else {"step": step}
    if tile.action is not None:
        args |= {"stage": tile.stage, "action": tile.action, "microbatch": tile.microbatch}
    return event(tile.name, tile.kind, tile.start_ns - origin, tile.end_ns - origin, rank, ACTIONS, args)


def collective_events(spans: Iterable[CollectiveSpan], rank: int, step: int, origin: int) -> Iterator[dict[str, Any]]:
    """The events of collectives, each on the first thread that is free, because spans on one thread may not overlap."""
    free: list[int] = []
    for span in sorted(spans, key=lambda span: span.start_ns):
        lane = next((lane for lane, end in enumerate(free) if end <= span.start_ns), len(free))
        free[lane : lane + 1] = [span.end_ns]
        args = {"axis": span.axis, "bytes": span.bytes, "direction": span.direction, "step": step}
        start, end = span.start_ns - origin, span.end_ns - origin
        yield event(span.collective, span.axis, start, end, rank, COLLECTIVES + lane, args)


def event(
    name: str, category: str, start_ns: int, end_ns: int, rank: int, thread: int, args: Mapping[str, Any]
) -> dict[str, Any]:
    """An event. Both ends are rounded, not the duration, so that events that touch still do."""
    start, end = microseconds(start_ns), microseconds(end_ns)
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "ts": start,
        "dur": round(end - start, 3),
        "pid": rank,
        "tid": thread,
        "args": args,
    }


def microseconds(nanoseconds: int) -> float:
    return round(nanoseconds / 1000, 3)
