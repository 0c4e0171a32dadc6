"""What saving costs: the median step with a checkpoint every 10 steps against the median step with none.

    python benchmarks/checkpoint.py --rounds 3

The main job (`model=small`, 16 ranks), with and without, in turn, so that a drift of the machine's speed meets both;
the ratio of a round is taken within it. A run's first two steps are left out. Beside the median over all steps the mean
is told: a save stalls one step in ten, which a median does not see.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS, WARM, EVERY = 42, 2, 10


def steps(saving: bool, steps: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "project/train.py", "+experiment=tp4_ep4_pp4", "model=small", "logger=csv"]
        options = [
            f"trainer.max_steps={steps}",
            "trainer.limit_val_batches=0",
            "trainer.accelerator=cpu",
            f"hydra.run.dir={folder}",
            f"callbacks.checkpoint.every_n_train_steps={EVERY}" if saving else "callbacks.checkpoint=null",
        ]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        with (Path(folder) / "metrics.csv").open() as file:
            return [float(row["train/step_time_s"]) for row in csv.DictReader(file)][WARM:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    medians, means = [], []
    for round_ in range(1, arguments.rounds + 1):
        order = (False, True) if round_ % 2 else (True, False)
        seen = {saving: steps(saving, arguments.steps) for saving in order}
        medians.append(statistics.median(seen[True]) / statistics.median(seen[False]))
        means.append(statistics.mean(seen[True]) / statistics.mean(seen[False]))
        print(
            f"round {round_}: median {statistics.median(seen[True]):.3f} s with, "
            f"{statistics.median(seen[False]):.3f} s without, "
            f"ratio {medians[-1]:.3f}; ratio of means {means[-1]:.3f}",
            flush=True,
        )
    print(f"ratio of medians {statistics.median(medians):.3f}, of means {statistics.median(means):.3f}")


if __name__ == "__main__":
    main()
