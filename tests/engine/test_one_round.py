"""The exchanges in one round give what gloo's own collectives give, bit for bit."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from project.compat.torch_internals import all_gather_single, reduce_scatter_single
from project.engine import one_round


def both(rank: int, world_size: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Results of one round, and of gloo's collective, of an all-gather and a reduce-scatter."""
    generator = torch.Generator().manual_seed(rank)
    numbers = (torch.randn(world_size * 3, 16, generator=generator) * 10 ** (rank % 3)).to(dtype)
    shard, name = numbers[:3].contiguous(), dist.group.WORLD.group_name
    gathered, scattered = torch.empty_like(numbers), torch.empty_like(shard)
    all_gather_single(gathered, shard)
    reduce_scatter_single(scattered, numbers)
    return [(one_round.all_gather(shard, name), gathered), (one_round.reduce_scatter(numbers, name), scattered)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_one_round_gives_the_bits_of_gloo(ranks, world_size: int, dtype: torch.dtype) -> None:
    for results in ranks.run(world_size, both, dtype):
        for ours, gloos in results:
            assert torch.equal(ours, gloos)


def test_the_operators_say_their_shapes_without_computing(ranks) -> None:
    assert ranks.run(2, shapes) == [((6, 16), (3, 16))] * 2


def shapes(rank: int, world_size: int) -> tuple:
    name = dist.group.WORLD.group_name
    gathered = one_round.all_gather(torch.empty(3, 16, device="meta"), name)
    return tuple(gathered.shape), tuple(one_round.reduce_scatter(gathered, name).shape)
