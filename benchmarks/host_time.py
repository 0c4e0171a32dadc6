"""CPU milliseconds of one layer, forward and backward: the bare model, one tensor-parallel rank, and four with their
experts.

    python benchmarks/host_time.py

The collectives of the four send nothing (torch's `fake` backend), so what is seen is the host's time to compute and to
launch: on a GPU, the least that a layer takes. CPU time and its lower quartile, so that other work on the machine
hardly disturbs it. One thread, d_model 64, 2 x 8 tokens.
"""

import time

import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from project.engine.local_shards import local_shards
from project.engine.mesh import build_mesh
from project.engine.parts import local_tensor, split
from project.model.init import reset_buffers
from project.model.transformer import Balancing, Transformer
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Part
from project.training.split_transformer import SplitTransformer

LAYERS, TOKENS, ROUNDS, MICROBATCHES = 2, 8, 40, 4
CASES = {"bare": None, "tp1": ParallelLayout(dp=4), "tp4 ep4": ParallelLayout(tp=4, ep=4)}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    size = {"num_layers": LAYERS, "d_model": 64, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "d_ff": 64}
    config = ModelConfig(**size, max_seq_len=16, capacity_factor=1.0, capacity_group=4)
    took = {name: sum(milliseconds(part_of(config, layout), layout)) for name, layout in CASES.items()}
    for name, each in took.items():
        print(f"{name:8} {each:6.2f} ms a layer, forward and backward; {each / took['bare']:.2f} of the bare model's")


def part_of(config: ModelConfig, layout: ParallelLayout | None) -> nn.Module:
    if layout is None:
        part: nn.Module = Transformer(config, range(LAYERS), first=False, last=False)
    else:
        model, mesh = SplitTransformer(config), build_mesh(layout, "cpu")
        part = split(model, Part(0, range(LAYERS), False, False), model.plan(layout), layout, mesh, torch.float32)
        part.to_empty(device="cpu")
    for parameter in part.parameters():
        local_tensor(parameter.data).normal_(std=0.02)
    reset_buffers(part)
    return part


def milliseconds(part: nn.Module, layout: ParallelLayout | None) -> tuple[float, float]:
    """Returns those of a layer's forward and backward."""
    x_BSD = torch.randn(2, TOKENS // (layout.tp if layout else 1), 64, requires_grad=True)
    forward, backward = [], []
    for _ in range(ROUNDS):
        with local_shards([part]):
            for _ in range(MICROBATCHES):
                start = time.process_time()
                out_BSD = part(x_BSD, balancing=Balancing(1.0))
                middle = time.process_time()
                out_BSD.sum().backward()
                forward.append(middle - start)
                backward.append(time.process_time() - middle)
        for parameter in part.parameters():
            parameter.grad = None
    quarter = len(forward) // 4
    return sorted(forward)[quarter] * 1e3 / LAYERS, sorted(backward)[quarter] * 1e3 / LAYERS


if __name__ == "__main__":
    main()
