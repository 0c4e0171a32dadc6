"""Seconds and CPU seconds of a step here, over those of another checkout of this project.

    git worktree add ../before 3bf299f
    python benchmarks/before_after.py ../before --rounds 3

The two run in turn, round by round, so that a drift of the machine's speed meets both; a round's ratio is taken within
it. Step seconds are the median after the first steps, which build and touch everything for the first time; CPU seconds
are those of all processes, of a long run less a short one.
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SHORT, LONG, WARM = 5, 35, 4
AS_BEFORE = ["+experiment=tp4_ep4_pp4", "parallel.recompute=none"]  # which older commits of the experiment have
TINY = ["model=tiny", "data=synthetic", "data.seq_len=32", "parallel.microbatches=4"]
CASES = {
    "16 ranks, tiny, 256 tokens": [*AS_BEFORE, *TINY],
    "16 ranks, small (make train)": [*AS_BEFORE, "model=small"],
    "1 rank, tiny, 1 microbatch": [*TINY, "parallel.microbatches=1"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, action="append")
    asked = parser.parse_args()
    for case in asked.case or CASES:
        rounds = [[measured(where, CASES[case]) for where in (HERE, asked.before)] for _ in range(asked.rounds)]
        for what, index in (("seconds", 0), ("CPU seconds", 1)):
            here, before = ([found[place][index] for found in rounds] for place in (0, 1))
            ratios = [new / old for new, old in zip(here, before, strict=True)]
            print(
                f"{case}: {what} a step {statistics.median(here):.3f} here, {statistics.median(before):.3f} before; "
                f"ratio {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
                flush=True,
            )


def measured(checkout: Path, options: list[str]) -> tuple[float, float]:
    """Returns a step's seconds and CPU seconds."""
    _, short = run(checkout, options, SHORT)
    seconds, long = run(checkout, options, LONG)
    return seconds, (long - short) / (LONG - SHORT)


def run(checkout: Path, options: list[str], steps: int) -> tuple[float, float]:
    """Returns the median seconds of a step, and the CPU seconds of the run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "project/train.py", *options, f"trainer.max_steps={steps}", "logger=csv"]
        command += ["trainer.limit_val_batches=0", "trainer.accelerator=cpu", f"hydra.run.dir={folder}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
        subprocess.run(command, check=True, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (Path(folder) / "metrics.csv").open() as file:
            seconds = [float(row["train/step_time_s"]) for row in csv.DictReader(file)]
    return statistics.median(seconds[WARM:] or seconds), sum(after[:2]) - sum(before[:2])


if __name__ == "__main__":
    main()
