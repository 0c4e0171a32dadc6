"""The process groups of a mesh: as few as there can be, for each costs."""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from project.engine import mesh
from project.engine.mesh import group_among, group_of_gradients
from project.engine.stage import ACTIVATION, GRADIENT, tagged
from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.outcome import Outcome
from tests.harness.ranks import RankPools
from tests.harness.training import fit

PAIRS = ((0, 1), (2, 3))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What rank 2 of four asks torch for."""
    calls: list[Any] = []
    monkeypatch.setattr(dist, "get_rank", lambda: 2)
    monkeypatch.setattr(dist, "new_group", lambda ranks, **options: calls.append((ranks, options)) or object())
    monkeypatch.setattr(
        dist, "split_group", lambda world, ranks, timeout, **named: calls.append((world, ranks)) or object()
    )
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


ZERO_BUBBLE = ParallelLayout(pp=2, tp=2, ep=2, schedule="ZBVZeroBubble", virtual_stages=2, microbatches=4)


def test_gradients_between_stages_have_a_group_of_their_own_over_nccl(asked: list[Any]) -> None:
    bound = world(torch.device("cuda", 2))
    assert group_of_gradients(bound, ZERO_BUBBLE) is not None
    assert asked == [(bound, [[0, 2], [1, 3]])]


@pytest.mark.parametrize(
    ("device", "layout"),
    [
        (None, ZERO_BUBBLE),
        (torch.device("cuda", 2), ParallelLayout(pp=2, tp=2, ep=2, microbatches=4)),
        (torch.device("cuda", 2), ParallelLayout(tp=4, ep=4)),
    ],
    ids=["gloo", "messages in batches", "one stage"],
)
def test_gradients_share_the_group_of_activations_where_another_gains_nothing(
    asked: list[Any], device: torch.device | None, layout: ParallelLayout
) -> None:
    assert group_of_gradients(world(device), layout) is None
    assert asked == []


def sent_in_two_groups(rank: int, world_size: int, case: Case) -> tuple[set[tuple[str, int]], dict, Outcome]:
    """The groups and tags of a run's messages, the axes by group, and its outcome, with a second group over gloo."""
    another = dist.new_group(list(range(world_size)))
    sent: set[tuple[str, int]] = set()

    def noted(ops: list[dist.P2POp], tag: int, group: dist.ProcessGroup) -> list[dist.P2POp]:
        ops = tagged(ops, tag, group)
        sent.update(("gradients" if op.group is another else "activations", op.tag) for op in ops)
        return ops

    with (
        mock.patch("project.engine.mesh.group_of_gradients", return_value=another),
        mock.patch("project.engine.stage.tagged", noted),
    ):
        axes = mesh.build_mesh(case.layout, "cpu").axis_names()
        return sent, axes[another.group_name], fit(rank, world_size, case)


def test_a_second_group_has_the_gradients_and_changes_no_bit(ranks: RankPools) -> None:
    case = Case(ParallelLayout(pp=2, schedule="Interleaved1F1B", virtual_stages=2, microbatches=4), steps=2)
    plain = ranks.run(2, fit, case)
    for alone, (sent, axis, together) in zip(plain, ranks.run(2, sent_in_two_groups, case), strict=True):
        assert sent == {("activations", ACTIVATION), ("gradients", GRADIENT)}
        assert axis == "pp"
        assert together.losses == alone.losses
