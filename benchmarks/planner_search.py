"""What a search over 16,384 GPUs costs: seconds of one core, memory, and microseconds a candidate.

    python -m benchmarks.planner_search

The model is like DeepSeek-V3 (arXiv 2412.19437): 61 layers, 256 experts of 2048, top-8 and a shared one, d_model 7168;
its attention is plain. 15,360 sequences of 4,096 tokens a step.
"""

import dataclasses
import resource

from project.model.config import ModelConfig
from project.parallel.layout import ParallelLayout
from project.planner import space
from project.planner.cluster_file import load_cluster
from project.planner.implementation import ours
from project.planner.search import overrides, search
from project.planner.workload import Workload

DEEPSEEK = ModelConfig(
    num_layers=61,
    num_dense_layers=3,
    d_model=7168,
    num_heads=128,
    num_kv_heads=128,
    head_dim=128,
    d_ff=2048,
    num_experts=256,
    top_k=8,
    num_shared_experts=1,
    vocab_size=129280,
)
BATCH, SEQ_LEN, NODES = 15360, 4096, 2048


def of(layout: ParallelLayout) -> Workload:
    return Workload(DEEPSEEK, BATCH, SEQ_LEN, ours("bf16-true", layout.dp_mode))


def candidates(gpus: int) -> int:
    return sum(
        len(space.RECOMPUTATIONS)
        * len(list(space.pipelines(dataclasses.replace(degrees, microbatches=number), DEEPSEEK)))
        for degrees in space.degrees(DEEPSEEK, gpus, BATCH, SEQ_LEN)
        for number in space.microbatches(degrees, BATCH)
    )


def main() -> None:
    cluster = dataclasses.replace(load_cluster("h100_128x8"), nodes=NODES)
    found = search(of, cluster)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    every = candidates(cluster.gpus)
    print(f"{cluster.gpus} GPUs: {found.seconds:.1f} s of one core, {held / 1e6:.0f} MB")
    print(f"{every:,} candidates, {found.tried:,} timed: {found.seconds / every * 1e6:.1f} us a candidate")
    for one in found.best[:3]:
        print(f"{one.seconds:.2f} s, {one.memory / 1e9:.0f} GB: {overrides(one.layout)}")


if __name__ == "__main__":
    main()
