"""A stage of the acceptance run: one task after the other, as many as time allows, and the block that tells them."""

import datetime
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.acceptance.bench import ROOT, Bench, Failed

Found = Iterator[tuple[str, str]]
"""What a task found, line by line: what, and the result."""


class Task(NamedTuple):
    """`seconds` is what it takes at least: with less left it is left out. It needs so many `gpus`."""

    name: str
    seconds: float
    find: Callable[[Bench], Found]
    gpus: int = 1


class Row(NamedTuple):
    what: str
    result: str
    state: str  # ok | FAILED | left out


class Stage(NamedTuple):
    letter: str
    name: str
    tasks: list[Task]


def rows(stage: Stage, bench: Bench) -> Iterator[Row]:
    """Runs the tasks. One that fails leaves what it had found before, and the next ones run."""
    for task in stage.tasks:
        if task.gpus > bench.gpus:
            yield Row(task.name, f"needs {task.gpus} GPUs, {bench.gpus} here", "left out")
            continue
        if task.seconds > bench.left_s:
            yield Row(task.name, f"{bench.left_s:.0f} s were left, it takes {task.seconds:.0f}", "left out")
            continue
        try:
            for what, result in task.find(bench):
                yield Row(what, result, "ok")
        except Failed as failure:
            yield Row(task.name, str(failure), "FAILED")
        except Exception as error:  # of ours: the other tasks are worth their time all the same
            yield Row(task.name, f"{type(error).__name__}: {error}", "FAILED")


def commit() -> str:
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True)
    return said.stdout.strip() or "no commit"


def block(stage: Stage, found: list[Row], bench: Bench, machine: str, seconds: float) -> str:
    """Markdown as `benchmarks/RESULTS.md` has it."""
    today = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).date()
    table = "\n".join(f"| {escaped(row.what)} | {escaped(row.result)} | {row.state} |" for row in found)
    return (
        f"## {today}: GPU acceptance, stage {stage.letter}: {stage.name}\n\n"
        f"`python -m benchmarks.gpu_acceptance {stage.letter}`, commit {commit()}, {machine}; {seconds:.0f} s.\n\n"
        f"| | | |\n|---|---|---|\n{table}\n"
    )


def escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def newest_first(results: str, new: str) -> str:
    """The text of RESULTS.md with a block put before the others."""
    head, heading, rest = results.partition("\n## ")
    return f"{head}\n{new}{heading}{rest}" if heading else f"{head.rstrip()}\n\n{new}"
