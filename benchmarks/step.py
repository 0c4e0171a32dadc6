"""Seconds per full-size training step: our 16 ranks against `transformers`' MixtralForCausalLM in one process.

    python -m benchmarks.step --rounds 3

Both train the reference document's model (8 layers, 4 experts of 4096, d_model 1024) in fp32 on 8 sequences of 256
tokens with AdamW and gradient clipping. The two run in turn, round by round, so that a drift of the machine's speed
meets both; the ratio of a round is taken within it. A run's first two steps are left out: they touch memory for the
first time. The one process has all cores and the whole batch at once; the C allocator is as it comes, or told to keep
its memory (`--tuned`), as our ranks have it. Our ranks cut the batch into 4 microbatches, as the experiment has it,
and into 8, one sequence each.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS, WARM = 5, 2


def ours(microbatches: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "project/train.py", "+experiment=tp4_ep4_pp4", "logger=csv"]
        options = [
            f"parallel.microbatches={microbatches}",
            f"trainer.max_steps={STEPS}",
            "trainer.limit_val_batches=0",
            f"hydra.run.dir={folder}",
            *("parallel.recompute=none", "trainer.precision=32-true"),  # as the other computes
        ]
        subprocess.run([*command, *options, "trainer.accelerator=cpu"], check=True, stdout=subprocess.DEVNULL)
        with (Path(folder) / "metrics.csv").open() as file:
            return [float(row["train/step_time_s"]) for row in csv.DictReader(file)][WARM:]


def theirs(tuned: bool) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.step", "--mixtral", *(["--tuned"] if tuned else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return [float(line) for line in done.stdout.split()][1:]


def step_mixtral(tuned: bool) -> None:
    """Prints each step's seconds."""
    import torch

    from benchmarks.mixtral import mixtral
    from project.spec.model import ModelConfig

    if tuned:
        from project.engine.host import keep_freed_memory

        keep_freed_memory()
    model = mixtral(ModelConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    text = torch.randint(0, model.config.vocab_size, (STEPS, 8, 256), generator=torch.Generator().manual_seed(0))
    for tokens in text:
        start = time.perf_counter()
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tuned", action="store_true", help="the one process keeps its memory as well")
    parser.add_argument("--mixtral", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mixtral:
        step_mixtral(arguments.tuned)
        return
    ratios: dict[int, list[float]] = {4: [], 8: []}
    for round_ in range(1, arguments.rounds + 1):
        one = statistics.median(theirs(arguments.tuned))
        for microbatches, seen in ratios.items():
            sixteen = statistics.median(ours(microbatches))
            seen.append(sixteen / one)
            print(
                f"round {round_}, {microbatches} microbatches: "
                f"16 ranks {sixteen:.1f} s, one process {one:.1f} s, ratio {seen[-1]:.2f}",
                flush=True,
            )
    for microbatches, seen in ratios.items():
        print(
            f"{microbatches} microbatches: ratio {statistics.median(seen):.2f}, from {min(seen):.2f} to {max(seen):.2f}"
        )


if __name__ == "__main__":
    main()
