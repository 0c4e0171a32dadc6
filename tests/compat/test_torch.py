"""torch does what `project.compat` relies on; each message says which of our features would go wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from project.compat import torch_internals
from project.preflight.gpus import Card, visible


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Seen(torch_internals.TorchDispatchMode):
    """Operations as they are dispatched, and whether autograd ran."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[object, bool]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append((func, torch_internals.in_backward()))
        return func(*args, **(kwargs or {}))


# -- collectives ------------------------------------------------------------------------------------------------------


def test_an_exchange_dispatches_the_operators_that_recomputation_keeps(one_rank: None) -> None:
    rows = torch.arange(6.0).view(3, 2)
    with Seen() as seen:
        out = torch_internals.all_to_all(rows, [3], [3], dist.group.WORLD)
    assert torch.equal(out, rows)
    assert [call for call, _ in seen.calls] == [torch_internals.ALL_TO_ALL, torch_internals.WAIT], (
        "selective recomputation would send tokens twice, and the ledger would not see when the exchange ended"
    )


def test_a_sum_over_ranks_dispatches_the_operators_that_recomputation_keeps(one_rank: None) -> None:
    x = torch.ones(2)
    with Seen() as seen:
        assert torch.equal(torch_internals.sum_over_ranks(x, dist.group.WORLD), x)
    called = [call for call, _ in seen.calls]
    assert {torch_internals.ALL_REDUCE, torch_internals.WAIT} <= set(called), "the balance loss would be sent twice"


def test_rows_are_gathered_and_sums_scattered_out_of_place(one_rank: None) -> None:
    rows = torch.arange(6.0).view(3, 2)
    for collective in (torch_internals.gather_rows, torch_internals.scatter_sums):
        out = collective(rows, dist.group.WORLD)
        assert torch.equal(out, rows), "a sequence cut over ranks would be put together wrongly on GPUs"


def test_a_local_part_becomes_a_tensor_divided_as_another(one_rank: None) -> None:
    weight = distribute_tensor(torch.ones(4, 2), init_device_mesh("cpu", (1,)), [Shard(0)])
    grad = torch_internals.divided_as(torch.full((4, 2), 2.0), weight)
    assert (grad.placements, grad.device_mesh) == (weight.placements, weight.device_mesh)
    weight = nn.Parameter(weight)
    weight.grad = grad
    assert torch.equal(weight.grad.full_tensor(), torch.full((4, 2), 2.0)), "weights would step by other gradients"


def test_a_group_is_found_by_the_name_that_operators_carry(one_rank: None) -> None:
    group = dist.group.WORLD
    assert torch_internals.group_named(group.group_name) is group, "the ledger would not know the axis of a message"


def test_a_result_that_is_not_there_yet_can_be_waited_for() -> None:
    pending = torch_internals.AsyncCollectiveTensor
    assert callable(pending.trigger_wait), "the ledger would take a collective's end from its first use"
    assert "elem" in pending.__slots__, "the ledger would not know which collective was waited for"


def test_the_default_group_gives_the_store_by_which_ranks_met(one_rank: None) -> None:
    assert isinstance(dist.group.WORLD.get_group_store(), dist.Store), "torchrun's ranks could not say who is late"


# -- dispatch ---------------------------------------------------------------------------------------------------------


def test_arguments_of_an_operation_have_names() -> None:
    call = torch_internals.arguments_by_name(torch_internals.ALL_REDUCE, ("x", "sum"), {"group_name": "g"})
    assert call == {"input": "x", "reduce_op": "sum", "group_name": "g"}, "the ledger could not count a message's bytes"


def test_operators_are_told_apart_by_their_classes() -> None:
    assert isinstance(torch.ops.aten.add.Tensor, torch_internals.OpOverload)
    assert isinstance(torch.ops.higher_order.cond, torch_internals.HigherOrderOperator)
    assert torch.ops.aten.add.Tensor.name() == "aten::add.Tensor", "the ledger would not recognise a collective"


def test_views_are_told_from_what_reads_the_numbers() -> None:
    message = "the ledger would end a collective where its result is only viewed"
    assert torch_internals.is_view(torch.ops.aten.view.default), message
    assert not torch_internals.is_view(torch.ops.aten.add.Tensor), message


def test_backward_is_told_from_forward() -> None:
    x = torch.ones(2, requires_grad=True)
    with Seen() as seen:
        (x * x).sum().backward()
    assert {during for call, during in seen.calls if call is torch.ops.aten.sum.default} == {False}
    assert True in {during for _, during in seen.calls}, "the ledger would count backward's messages as the step's"


# -- tensors ----------------------------------------------------------------------------------------------------------


def test_the_plain_tensor_under_a_dtensor_is_found(one_rank: None) -> None:
    whole = torch.ones(4)
    split = distribute_tensor(whole, init_device_mesh("cpu", (1,)), [Replicate()])
    (plain,) = torch_internals.plain_tensors(split)
    assert type(plain) is Tensor, "activations under tensor parallelism would not be counted"
    assert list(torch_internals.plain_tensors(whole)) == [whole]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_storage_has_one_number_for_all_views(device: str) -> None:
    x, other = torch.ones(4, device=device), torch.ones(4, device=device)
    number = torch_internals.storage_id(x.untyped_storage())
    assert number == torch_internals.storage_id(x[2:].untyped_storage()), "activations would be counted twice"
    assert number != torch_internals.storage_id(other.untyped_storage()), "activations would be missed"


def test_tensors_are_scaled_and_clamped_in_place() -> None:
    tensors = [torch.tensor([-3.0, 1.0]), torch.tensor([2.0])]
    torch_internals.scale_in_place(tensors, 2.0)
    assert [tensor.tolist() for tensor in tensors] == [[-6.0, 2.0], [4.0]], "gradients would not be unscaled"
    torch_internals.clamp_in_place(tensors, 3.0)
    assert [tensor.tolist() for tensor in tensors] == [[-3.0, 2.0], [3.0]], "gradients would not be clipped by value"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_norms_are_at_least_fp32(dtype: torch.dtype) -> None:
    both = torch_internals.norms([torch.full((4,), 2.0, dtype=dtype), torch.full((9,), 1.0, dtype=dtype)])
    assert [norm.item() for norm in both] == [4.0, 3.0], "gradients would be clipped by another norm"
    assert {norm.dtype for norm in both} == {torch.promote_types(dtype, torch.float32)}


def test_tensors_in_nested_arguments_are_found() -> None:
    assert torch_internals.tree_leaves(([1, (2,)], {"a": 3})) == [1, 2, 3], "the ledger would miss a message's tensors"


# -- recomputation ----------------------------------------------------------------------------------------------------


def test_what_selective_checkpointing_keeps_can_be_counted() -> None:
    kept = {torch.ops.aten.mm.default}
    recomputations = []

    def contexts():
        both = create_selective_checkpoint_contexts(
            lambda ctx, call, *args, **kwargs: (
                CheckpointPolicy.MUST_SAVE if call in kept else CheckpointPolicy.PREFER_RECOMPUTE
            )
        )
        recomputations.append(both[1])
        return both

    x = torch.ones(2, 2, requires_grad=True)
    out = checkpoint(lambda y: (y @ y).sin().sum(), x, use_reentrant=False, context_fn=contexts)
    results = [tensor.tolist() for tensor in torch_internals.results_beside_graph(recomputations[0])]
    assert results == [[[2.0, 2.0], [2.0, 2.0]]], "the activations of selective recomputation would not be counted"
    out.backward()


def test_marks_of_the_profiler_may_differ_between_a_forward_and_its_recomputation() -> None:
    torch_internals.ignore_profiler_marks()
    forwards = []

    def forward(y: Tensor) -> Tensor:
        forwards.append(1)
        if len(forwards) == 1:  # as FSDP's hooks do
            with torch.profiler.record_function("first"):
                return y.sin().sin()
        return y.sin().sin()

    x = torch.ones(2, requires_grad=True)
    policy = [torch.ops.aten.sin.default]
    out = checkpoint(forward, x, use_reentrant=False, context_fn=lambda: create_selective_checkpoint_contexts(policy))
    out.sum().backward()  # would raise: sharded replicas could not recompute
    assert x.grad is not None


# -- pipelining -------------------------------------------------------------------------------------------------------


def test_the_runtime_of_actions_is_the_class_of_torch_s_later_schedules() -> None:
    from torch.distributed.pipelining.schedules import get_schedule_class

    for name in ("Interleaved1F1B", "ZBVZeroBubble", "DualPipeV", "InterleavedZeroBubble"):
        assert issubclass(get_schedule_class(name), torch_internals.ActionRuntime), (
            "evaluation would walk through the backward actions"
        )
    action = torch_internals.Action.from_str("1F0")
    assert (action.stage_index, action.microbatch_index, action.sub_actions) == (1, 0, None)


def test_an_order_is_run_and_evaluated_without_a_loss(one_rank: None) -> None:
    from torch.distributed.pipelining import PipelineStage

    stage = PipelineStage(nn.Linear(2, 2), 0, 1, torch.device("cpu"))
    order = [["0F0", "0F1", "0B0", "0B1"]]
    schedule = torch_internals.schedule_of_order(order, [stage], 2, lambda out, target: (out - target).sum())
    computed = [str(action) for action in schedule.pipeline_order_with_comms[0] if action.is_compute_op]
    assert computed[:4] == ["0F0", "0F1", "0B0", "0B1"], "a schedule would run in another order"
    inputs, losses = torch.ones(4, 2), []
    schedule.step(inputs, target=inputs, losses=losses)
    assert len(losses) == 2, "a schedule would not train"
    with torch_internals.without_loss(schedule):
        out = schedule.eval(inputs)
    assert torch.equal(out, stage.submod(inputs)), "predictions would ask for targets"


# -- meshes and styles ------------------------------------------------------------------------------------------------


def test_two_axes_are_taken_as_one_that_the_root_remembers(one_rank: None) -> None:
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("ep", "etp"))
    both = torch_internals.flattened(mesh["ep", "etp"])
    assert (both.mesh_dim_names, both.ndim) == (("ep_etp",), 1), "experts split over ep and etp would have no group"
    again = torch_internals.flattened(mesh["ep", "etp"])
    assert again.get_group() is both.get_group(), "the ledger would not know the axis of its messages"


def test_a_dtensor_says_which_part_of_the_whole_it_is(one_rank: None) -> None:
    (part,) = distribute_tensor(torch.ones(4, 2), init_device_mesh("cpu", (1,)), [Replicate()]).__create_chunk_list__()
    assert (tuple(part.offsets), tuple(part.sizes)) == ((0, 0), (4, 2)), "weights would be drawn for another part"


def test_a_parallel_style_is_applied_by_its_private_method(one_rank: None) -> None:
    applied: list[nn.Module] = []

    class Style(ParallelStyle):
        def _apply(self, module, device_mesh):
            applied.append(module)
            return module

    module = nn.Linear(2, 2)
    parallelize_module(module, init_device_mesh("cpu", (1,)), Style())
    assert applied == [module], "experts, norms and routers would not be split"


# -- the allocator ----------------------------------------------------------------------------------------------------


def test_the_allocator_s_history_takes_our_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The signatures: there is no history without a GPU."""
    import inspect

    record = inspect.signature(torch.cuda.memory._record_memory_history)
    dump = inspect.signature(torch.cuda.memory._dump_snapshot)
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda **given: calls.append(given))
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", calls.append)
    torch_internals.record_memory_history(10)
    torch_internals.write_memory_history(tmp_path / "rank_0.pickle")
    start, path, stop = calls
    record.bind(**start)
    record.bind(**stop)
    dump.bind(path)  # debug=memory would fail on a GPU
    assert {"enabled", "max_entries"} <= set(
        inspect.signature(torch.cuda.memory._record_memory_history_impl).parameters
    )


@pytest.mark.parametrize(
    "shown", [None, "", "0", "0,1", "1,0,7,2", "2, 1", "0,0", "-1", "0,-1,1", "GPU-a", "GPU-b1", "GPU-a1,GPU-b1", "x"]
)
def test_torch_counts_the_gpus_that_preflight_counts(shown: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check would look at other cards than the ranks get."""
    uuids = ["GPU-a1", "GPU-a2", "GPU-b1"]
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: len(uuids))
    monkeypatch.setattr(torch.cuda, "_raw_device_uuid_nvml", lambda: uuids)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    cards = tuple(Card(index, uuid, "one") for index, uuid in enumerate(uuids))
    assert len(visible(cards, shown)) == torch.cuda._device_count_nvml()


def test_a_build_says_which_gpus_it_has_code_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    assert torch_internals.cuda_architectures() == () or torch.version.cuda
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch._C, "_cuda_getArchFlags", lambda: "sm_80 sm_90", raising=False)
    assert torch_internals.cuda_architectures() == ("sm_80", "sm_90")
    assert "torch._C._cuda_getArchFlags()" in inspect.getsource(torch.cuda.get_arch_list)
