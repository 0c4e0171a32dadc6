"""The ledger's calls and bytes of a step equal the planner's, which are the least that the design can send."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

from project.callbacks.first_steps import Communication
from project.engine.stage import GRADIENT
from project.model.router import Router
from project.observe.ledger import Ledger
from project.planner.cost.traffic import by_axis, traffic
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from tests.harness.case import SMALL, Case
from tests.harness.measured import BalancedModule
from tests.harness.training import CaseModule, run

# -- what is counted ----------------------------------------------------------------------------------------------


def use_every_collective(rank: int, world_size: int) -> dict:
    """Uses each collective on 5 numbers of 4 bytes, or 5 for every rank."""
    ledger = Ledger({dist.group.WORLD.group_name: "world"})
    five, many = torch.ones(5, dtype=torch.int32), torch.ones(5 * world_size, dtype=torch.int32)
    pieces, empty = list(many.chunk(world_size)), list(torch.empty_like(many).chunk(world_size))
    uneven = [5 + rank if other == rank else 1 + other for other in range(world_size)]
    received = [5 + rank if other == rank else 1 + rank for other in range(world_size)]
    with ledger:
        dist.all_reduce(five.clone())
        dist.all_gather_single(torch.empty_like(many), five)
        dist.all_gather(empty, five)
        dist.reduce_scatter_single(torch.empty_like(five), many)
        dist.all_to_all_single(torch.empty_like(many), many)
        torch.ops._c10d_functional.all_to_all_single(
            torch.ones(sum(uneven), dtype=torch.int32), received, uneven, dist.group.WORLD.group_name
        )
        dist.broadcast(five, 1)
        dist.reduce(five, 1)
        dist.gather(five, empty if rank == 1 else None, 1)
        dist.scatter(five, pieces if rank == 1 else None, 1)
        dist.barrier()
        neighbours = (rank + 1) % world_size, (rank - 1) % world_size
        batch = [dist.P2POp(dist.isend, five, neighbours[0], tag=GRADIENT), dist.P2POp(dist.irecv, five, neighbours[1])]
        batch[1].tag = GRADIENT
        for work in dist.batch_isend_irecv(batch):
            work.wait()
    return ledger.table()["world"]


def test_the_ledger_counts_each_collective_with_the_bytes_it_sends(ranks) -> None:
    for rank, table in enumerate(ranks.run(4, use_every_collective)):
        root, given = rank == 1, 5 * 4
        others = sum(1 + other for other in range(4) if other != rank)
        wanted = {
            "all_reduce": (1, given * 3 // 2),
            "all_gather": (2, 2 * given * 3),
            "reduce_scatter": (1, given * 3),
            "all_to_all": (2, given * 3 + others * 4),
            "broadcast": (1, given if root else 0),
            "reduce": (1, 0 if root else given),
            "gather": (1, 0 if root else given),
            "scatter": (1, given * 3 if root else 0),
            "barrier": (1, 0),
        }
        assert {name: table[name]["step"] for name in wanted} == {
            name: {"calls": calls, "bytes": sent} for name, (calls, sent) in wanted.items()
        }
        assert table["send"]["backward"] == {"calls": 1, "bytes": given}
        assert table["recv"]["backward"] == {"calls": 1, "bytes": 0}
        assert table.keys() == {*wanted, "send", "recv"}


def redistribute(rank: int, world_size: int) -> dict:
    mesh = init_device_mesh("cpu", (world_size,), mesh_dim_names=("x",))
    ledger = Ledger({mesh.get_group().group_name: "x"})
    whole = torch.ones(4, 6, requires_grad=True)
    with ledger:
        shard = distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)
        with ledger.forward():
            gathered = shard.redistribute(placements=[Replicate()])
        (gathered.to_local(grad_placements=[Partial()]) ** 2).sum().backward()
    return ledger.table()


def test_the_ledger_counts_a_dtensor_s_collectives_once_forward_and_backward(ranks) -> None:
    once = {"calls": 1, "bytes": 2 * 6 * 4}
    for table in ranks.run(2, redistribute):
        assert table == {
            "x": {"all_gather": once | {"forward": once}, "reduce_scatter": once | {"backward": once}},
        }


def talk_in_groups(rank: int, world_size: int) -> dict:
    alone, pair = (dist.new_subgroups(group_size=size)[0] for size in (1, 2))
    ledger = Ledger({})
    with ledger:
        for group in (alone, pair, dist.group.WORLD):
            dist.all_reduce(torch.ones(1), group=group)
    return ledger.table()


def test_the_ledger_names_a_group_without_a_name_by_its_ranks_and_counts_nothing_for_one_rank(ranks) -> None:
    tables = ranks.run(4, talk_in_groups)
    assert [list(table) for table in tables] == 2 * [["ranks 0,1", "ranks 0,1,2,3"]] + 2 * [
        ["ranks 0,1,2,3", "ranks 2,3"]
    ]


# -- a training step ----------------------------------------------------------------------------------------------


class TalkativeModule(BalancedModule):
    """A module with one collective too many: the router's answers are compared over tp."""

    def reset_part(self, part: Any) -> None:
        super().reset_part(part)
        group = self.strategy.mesh.tp.get_group()
        for router in (module for module in part.modules() if isinstance(module, Router)):
            router.register_forward_hook(lambda module, args, routing: dist.all_reduce(torch.zeros(1), group=group))


class Losses(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.losses.append(trainer.callback_metrics["train/loss"].item())


def book(rank: int, world_size: int, case: Case, module: type[CaseModule]) -> dict:
    communication = Communication()
    run(rank, world_size, case, communication, module=module)
    return communication.ledger.table()


def wanted(case: Case) -> list[dict]:
    step = Step(case.model, case.layout, case.batch, case.seq_len, case.precision, case.accumulate)
    books = [by_axis(traffic(step, pp_rank)) for pp_rank in range(case.layout.pp)]
    return [books[case.layout.coordinates(rank).pp] for rank in range(case.layout.world_size)]


def assert_books(books: list[dict], wanted: list[dict]) -> None:
    differences = [
        f"rank {rank}, {axis}, {collective}: {lines(have, axis, collective)}, not {lines(ought, axis, collective)}"
        for rank, (have, ought) in enumerate(zip(books, wanted, strict=True))
        for axis in have.keys() | ought.keys()
        for collective in have.get(axis, {}).keys() | ought.get(axis, {}).keys()
        if lines(have, axis, collective) != lines(ought, axis, collective)
    ]
    assert not differences, "\n".join(sorted(differences))


def lines(table: dict, axis: str, collective: str) -> Any:
    return table.get(axis, {}).get(collective)


def second_step(layout: ParallelLayout, **changes: Any) -> Case:
    return Case(layout, steps=2, **changes)


LAYOUTS = {
    "single": ParallelLayout(microbatches=4),
    "tp2": ParallelLayout(tp=2, microbatches=2),
    "tp2_ep2": ParallelLayout(tp=2, ep=2, microbatches=2),
    "tp4_ep4": ParallelLayout(tp=4, ep=4, microbatches=2),
    "pp2": ParallelLayout(pp=2, microbatches=4),
    "pp4": ParallelLayout(pp=4, microbatches=4),
    "tp2_ep2_pp2": ParallelLayout(pp=2, tp=2, ep=2, microbatches=4),
    "tp4_ep4_pp4": ParallelLayout(pp=4, tp=4, ep=4, microbatches=4),
    "dp2": ParallelLayout(dp=2, microbatches=2),
    "dp2_tp2_ep2": ParallelLayout(dp=2, tp=2, ep=2, microbatches=2),
    "dp2_pp2": ParallelLayout(dp=2, pp=2, microbatches=2),
    "ep over dp": ParallelLayout(dp=2, ep=2, microbatches=2),
    "ep over dp and tp": ParallelLayout(dp=2, tp=2, ep=4, microbatches=2),
    "etp": ParallelLayout(tp=2, etp=2, microbatches=2),
    "ep and etp": ParallelLayout(dp=2, tp=2, ep=2, etp=2, microbatches=2),
    "etp, and replicas of experts": ParallelLayout(dp=2, tp=2, etp=2, microbatches=2),
    "interleaved": ParallelLayout(pp=2, virtual_stages=2, schedule="Interleaved1F1B", microbatches=4),
    "zero bubble": ParallelLayout(pp=2, virtual_stages=2, schedule="InterleavedZeroBubble", microbatches=4),
    "v": ParallelLayout(pp=2, tp=2, ep=2, virtual_stages=2, schedule="ZBVZeroBubble", microbatches=4),
    "two ways": ParallelLayout(pp=2, virtual_stages=2, schedule="DualPipeV", microbatches=4),
    "shards": ParallelLayout(dp=2, dp_mode="shard", microbatches=2),
    "shards, tp2_ep2": ParallelLayout(dp=2, tp=2, ep=2, dp_mode="shard", microbatches=2),
    "shards, etp": ParallelLayout(dp=2, tp=2, etp=2, dp_mode="shard", microbatches=2),
    "shards, pp2": ParallelLayout(dp=2, pp=2, dp_mode="shard", microbatches=2),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_rank_sends_exactly_the_planned_calls_and_bytes(ranks, name: str) -> None:
    case = second_step(LAYOUTS[name])
    assert_books(ranks.run(case.layout.world_size, book, case, BalancedModule), wanted(case))


@pytest.mark.parametrize("name", ["tp2_ep2", "pp4", "tp2_ep2_pp2", "ep and etp"])
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_every_rank_sends_exactly_the_planned_calls_and_bytes_under_recomputation(
    ranks, name: str, recompute: str
) -> None:
    case = second_step(replace(LAYOUTS[name], recompute=recompute))
    assert_books(ranks.run(case.layout.world_size, book, case, BalancedModule), wanted(case))


@pytest.mark.parametrize("name", ["pp2", "pp4", "tp2_ep2_pp2", "dp2_pp2"])
def test_every_rank_sends_exactly_the_planned_calls_and_bytes_under_gpipe(ranks, name: str) -> None:
    case = second_step(replace(LAYOUTS[name], schedule="GPipe"))
    assert_books(ranks.run(case.layout.world_size, book, case, BalancedModule), wanted(case))


@pytest.mark.parametrize("name", ["single", "tp2_ep2_pp2", "dp2_tp2_ep2", "shards", "shards, pp2"])
def test_every_rank_sends_exactly_the_planned_calls_and_bytes_when_batches_are_accumulated(ranks, name: str) -> None:
    case = second_step(LAYOUTS[name], accumulate=2)
    assert_books(ranks.run(case.layout.world_size, book, case, BalancedModule), wanted(case))


MODELS = {
    "a shared expert": replace(SMALL, num_shared_experts=1),
    "a dense layer": replace(SMALL, num_dense_layers=1),
    "several experts on a rank": replace(SMALL, num_experts=8, top_k=4),
    "a capacity": replace(SMALL, capacity_factor=1.25, capacity_group=4),
    "a gated shared expert": replace(SMALL, num_shared_experts=1, shared_gate=True, qkv_bias=True),
    "a norm over all heads": replace(SMALL, qk_norm=True, qk_norm_over="width"),
}


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("model", MODELS)
def test_every_rank_sends_exactly_the_planned_calls_and_bytes_for_other_models(
    ranks, model: str, recompute: str
) -> None:
    case = second_step(replace(LAYOUTS["tp2_ep2_pp2"], recompute=recompute), model=MODELS[model])
    assert_books(ranks.run(case.layout.world_size, book, case, BalancedModule), wanted(case))


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_every_rank_sends_exactly_the_planned_calls_and_bytes_in_other_precisions(ranks, precision: str) -> None:
    case = second_step(LAYOUTS["tp2_ep2_pp2"], precision=precision)
    assert_books(ranks.run(case.layout.world_size, book, case, BalancedModule), wanted(case))


def test_the_ledger_finds_one_collective_too_many(ranks) -> None:
    case = second_step(LAYOUTS["tp2_ep2_pp2"])
    layers, before = 2, wanted(case)
    for table, without in zip(ranks.run(4, book, case, TalkativeModule), before, strict=True):
        assert table != without
        more = layers * case.layout.microbatches
        assert table["tp"]["all_reduce"]["calls"] == without["tp"]["all_reduce"]["calls"] + more


# -- what the router decides --------------------------------------------------------------------------------------


class Choices(L.Callback):
    """Records every router's choice for every microbatch of the last step."""

    def __init__(self) -> None:
        self.choices: list[Tensor] = []

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        for router in (found for found in module.modules() if isinstance(found, Router)):
            router.register_forward_hook(lambda module, args, routing: self.choices.append(routing.experts_TA))

    def on_train_batch_start(self, *args: Any) -> None:
        self.choices = []


def book_and_choices(rank: int, world_size: int, case: Case) -> tuple[dict, list[Tensor]]:
    communication, choices = Communication(), Choices()
    run(rank, world_size, case, communication, choices)
    return communication.ledger.table(), choices.choices


def test_the_ledger_counts_the_rows_that_an_uneven_routing_sends_to_other_ranks(ranks) -> None:
    case = second_step(LAYOUTS["tp4_ep4"])
    books, choices = zip(*ranks.run(4, book_and_choices, case), strict=True)
    experts, row = torch.arange(case.model.num_experts), case.model.d_model * 4
    # sent[r, s]: rows from rank r to rank s, which holds expert s, over all layers and microbatches.
    sent = torch.stack([(torch.cat(chosen).flatten() == experts.unsqueeze(1)).sum(1) for chosen in choices])
    sent.fill_diagonal_(0)
    assert len(set(sent.flatten().tolist())) > 4, "not balanced"
    for rank, table in enumerate(books):
        rows = sent[rank].sum().item() + sent[:, rank].sum().item()
        counts = len(choices[rank]) * (case.model.num_experts - 1) * 8
        assert table["tp"]["all_to_all"]["forward"]["bytes"] == rows * row + counts
        assert table["tp"]["all_to_all"]["backward"]["bytes"] == rows * row


# -- what it costs ------------------------------------------------------------------------------------------------


def losses_with_and_without(rank: int, world_size: int, case: Case) -> tuple[list[float], list[float]]:
    counted, plain = Losses(), Losses()
    run(rank, world_size, case, Communication(steps=case.steps), counted)
    run(rank, world_size, case, plain)
    return counted.losses, plain.losses


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_the_ledger_changes_no_bit_of_the_loss(ranks, recompute: str) -> None:
    case = Case(replace(LAYOUTS["tp2_ep2_pp2"], recompute=recompute), steps=3)
    for counted, plain in ranks.run(4, losses_with_and_without, case):
        assert counted == plain
