"""The process groups of a mesh: as few as there can be, for each costs."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from project.engine.mesh import group_among

PAIRS = ((0, 1), (2, 3))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What rank 2 of four asks torch for."""
    calls: list[Any] = []
    monkeypatch.setattr(dist, "get_rank", lambda: 2)
    monkeypatch.setattr(dist, "new_group", lambda ranks, **options: calls.append((ranks, options)) or object())
    monkeypatch.setattr(dist, "split_group", lambda world, ranks, timeout: calls.append((world, ranks)) or object())
    return calls


def world(device: torch.device | None) -> Any:
    return SimpleNamespace(bound_device_id=device)


def test_an_axis_of_all_ranks_is_the_world(asked: list[Any]) -> None:
    everyone = world(None)
    assert group_among.__wrapped__(everyone, ((0, 1, 2, 3),)) is everyone
    assert asked == []


def test_an_axis_of_one_rank_has_one_group_that_nobody_waits_for(asked: list[Any]) -> None:
    group_among.__wrapped__(world(torch.device("cuda", 2)), ((0,), (1,), (2,), (3,)))
    assert asked == [([2], {"timeout": None, "use_local_synchronization": True})]


def test_gloo_s_groups_of_an_axis_are_made_one_by_one(asked: list[Any]) -> None:
    group_among.__wrapped__(world(None), PAIRS)
    assert [ranks for ranks, _ in asked] == [[0, 1], [2, 3]]


def test_nccl_s_groups_of_an_axis_are_one_split(asked: list[Any]) -> None:
    bound = world(torch.device("cuda", 2))
    group_among.__wrapped__(bound, PAIRS)
    assert asked == [(bound, [[0, 1], [2, 3]])]
