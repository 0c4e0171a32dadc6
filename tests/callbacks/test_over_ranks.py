"""Numbers gathered from several ranks."""

from types import SimpleNamespace

import torch

from project.callbacks.observed import over_ranks

TRAINER = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))


def gather(rank, world_size):
    return over_ranks(TRAINER, [rank, 10.0 * rank])


def test_every_rank_knows_every_ranks_numbers(ranks):
    assert ranks.run(2, gather) == [[[0.0, 1.0], [0.0, 10.0]]] * 2


def test_one_process_gathers_its_own_numbers():
    assert over_ranks(TRAINER, [3.0, 4.0]) == [[3.0], [4.0]]
