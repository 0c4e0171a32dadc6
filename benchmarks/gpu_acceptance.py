"""The acceptance run on GPUs, one or more: three stages of under ten minutes each.

    python -m benchmarks.gpu_acceptance A --record     correctness
    python -m benchmarks.gpu_acceptance B --record     speed
    python -m benchmarks.gpu_acceptance C --record     diagnosis

A stage prints its lines as they are found, leaves logs, run folders and a dated block in its folder, and puts the block
into RESULTS.md if asked. Status 1 if a line failed. What there is no time or no GPU for is left out, and told.
`--accelerator cpu --size tiny` tries the program itself.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.acceptance.bench import FULL, ROOT, TINY, Bench
from benchmarks.acceptance.correctness import CORRECTNESS
from benchmarks.acceptance.diagnosis import DIAGNOSIS
from benchmarks.acceptance.speed import SPEED
from benchmarks.acceptance.stage import Stage, block, newest_first, rows
from project.engine.host import count_gpus

STAGES = {stage.letter: stage for stage in (CORRECTNESS, SPEED, DIAGNOSIS)}
RESULTS = ROOT / "benchmarks/RESULTS.md"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--limit-s", type=float, default=570, help="seconds that the stage may take")
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--gpus", type=int, help="so many of them; all by default")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--folder", type=Path, help="of logs and runs; a new one by default")
    parser.add_argument("--record", action="store_true", help="put the block into benchmarks/RESULTS.md")
    asked = parser.parse_args(arguments)
    here, most = (count_gpus(),) * 2 if asked.accelerator == "cuda" else (1, 16)
    gpus = here if asked.gpus is None else asked.gpus
    if not 1 <= gpus <= most:
        parser.error(f"--gpus={gpus}: from 1 to {most} can be had here; --accelerator cpu needs none")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="acceptance_"))
    folder.mkdir(parents=True, exist_ok=True)
    size = {"full": FULL, "tiny": TINY}[asked.size]
    bench = Bench(folder, asked.accelerator, gpus, size, time.monotonic() + asked.limit_s)
    return run(STAGES[asked.stage], bench, RESULTS if asked.record else None)


def run(stage: Stage, bench: Bench, results: Path | None) -> int:
    """Returns the exit status."""
    started = time.monotonic()
    machine = bench.command("-m", "benchmarks.acceptance.machine", bench.accelerator).strip().splitlines()[-1]
    print(f"stage {stage.letter}, {stage.name}: {machine}; logs in {bench.folder}", flush=True)
    found = []
    for row in rows(stage, bench):
        found.append(row)
        print(f"{row.state:8}  {row.what}: {row.result}  ({time.monotonic() - started:.0f} s)", flush=True)
    told = block(stage, found, bench, machine, time.monotonic() - started)
    (bench.folder / f"stage_{stage.letter}.md").write_text(told)
    if results is not None:
        results.write_text(newest_first(results.read_text(), told + "\n"))
    print(f"\n{told}")
    return 1 if any(row.state == "FAILED" for row in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
