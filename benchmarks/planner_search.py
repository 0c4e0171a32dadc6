"""What a search over 16,384 GPUs costs: seconds of one core, memory, and microseconds a candidate, of the whole command
that a user gives.

    python -m benchmarks.planner_search

The model is like DeepSeek-V3 (arXiv 2412.19437): 61 layers, 256 experts of 2048, top-8 and a shared one, d_model 7168;
its attention is plain. 15,360 sequences of 4,096 tokens a step.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from project.planner.search import space
from project.spec.layout import RECOMPUTE, ParallelLayout
from project.spec.model import ModelConfig

ROOT = Path(__file__).parents[1]
MODEL = {
    "num_layers": 61,
    "num_dense_layers": 3,
    "d_model": 7168,
    "num_heads": 128,
    "num_kv_heads": 128,
    "head_dim": 128,
    "d_ff": 2048,
    "num_experts": 256,
    "top_k": 8,
    "num_shared_experts": 1,
    "vocab_size": 129280,
}
DEEPSEEK = dataclasses.replace(ModelConfig(), **MODEL)  # type: ignore[arg-type]
BATCH, SEQ_LEN, NODES, GPUS_A_NODE = 15360, 4096, 2048, 8
COMMAND = (
    "project/plan.py",
    "search=true",
    "cluster=h100_128x8",
    f"cluster.nodes={NODES}",
    "trainer.precision=bf16-true",
    f"data.batch_size={BATCH}",
    f"data.seq_len={SEQ_LEN}",
    *(f"model.{key}={value}" for key, value in MODEL.items()),
)


def candidates(gpus: int) -> int:
    """All that are legal."""
    return sum(
        len(RECOMPUTE) * pipelines(degrees.pp, number)
        for degrees in space.degrees(DEEPSEEK, gpus, BATCH, SEQ_LEN)
        for number in space.microbatches(degrees, BATCH)
    )


@cache
def pipelines(pp: int, microbatches: int) -> int:
    return len(list(space.pipelines(ParallelLayout(pp=pp, microbatches=microbatches), DEEPSEEK)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *COMMAND, f"hydra.run.dir={folder}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found = json.loads((Path(folder) / "search.json").read_text())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    tried = [NODES * GPUS_A_NODE, *map(int, found["fewer"])]
    every = sum(map(candidates, tried))
    print(
        f"{', '.join(map(str, tried))} GPUs: {seconds:.1f} s of one core, {used.ru_maxrss * 1024 / 1e6:.0f} MB in all"
    )
    print(f"{every:,} candidates are legal: {seconds / every * 1e6:.2f} us for each")
    for what in ("timed", "weighed"):
        print(f"{found[what]:,} were {what}: {seconds / found[what] * 1e3:.2f} ms of the whole for each")
    for one in found["best"][:3]:
        print(f"{one['seconds']:.2f} s, {one['memory'] / 1e9:.0f} GB: {one['command']}")


if __name__ == "__main__":
    main()
