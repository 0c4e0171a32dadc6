"""What one rank sends in one optimizer step: the design's "How a step runs" as arithmetic on model, layout and batch.

The tests hold it to `project.observe.ledger`, call by call and byte by byte. Experts are taken to be balanced: every
rank sends every other equally many rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from project.planner.cost.parameters import parameters_of
from project.planner.cost.transfer import Transfer
from project.planner.machine.group import WORLD, group_over
from project.planner.step import Step, rows_sent
from project.spec.cost import embedding_parameters
from project.spec.partition import Part
from project.spec.precision import DOUBLE, INT64, width_of

STATISTICS = 4  # of a layer in the table that is logged: auxiliary loss, z-loss, entropy, dropped fraction


def traffic(step: Step, pp_rank: int) -> list[Transfer]:
    """Of one rank of that pipeline rank; they all send as much. Nothing among groups of one."""
    found = (*_microbatches(step, pp_rank), *_once_a_step(step, pp_rank))
    return [transfer for transfer in found if transfer.group.size > 1 and transfer.calls]


# -- a microbatch -------------------------------------------------------------------------------------------------


def _microbatches(step: Step, pp_rank: int) -> Iterator[Transfer]:
    for part in step.parts_on(pp_rank):
        with_experts = len([layer for layer in part.layers if layer in step.config.moe_layers])
        stage = _Stage(step, part)
        if part.first:
            yield from stage.embedding()
        yield from stage.attention(len(part.layers))
        if with_experts:
            yield from stage.balance(with_experts)
            yield from stage.experts(with_experts)
        if with_experts and step.config.num_shared_experts:
            yield from stage.feed_forward("shared", with_experts)
        if with_experts < len(part.layers):
            yield from stage.feed_forward("feed_forward", len(part.layers) - with_experts)
        if part.last:
            yield from stage.head_and_loss()
        yield from stage.messages()


class _Stage:
    """Of one stage, for every microbatch."""

    def __init__(self, step: Step, part: Part) -> None:
        self.step, self.part = step, part
        self.config, self.layout = step.config, step.layout
        self.width = width_of(step.precision)
        # One microbatch of what is between the matrices: this rank's share of its sequences.
        self.numbers = step.tokens * step.config.d_model // step.layout.tp

    def over(
        self, axes: tuple[str, ...], module: str, collective: str, direction: str, times: int, given: int
    ) -> Transfer:
        calls = times * self.step.microbatches
        return Transfer(
            self.part.stage, module, group_over(axes, self.layout), collective, direction, calls, given, times
        )

    def gather(self, module: str, direction: str, times: int, element: int) -> Transfer:
        """Shards of a sequence, to the whole sequence."""
        return self.over(("tp",), module, "all_gather", direction, times, self.numbers * element)

    def scatter(self, module: str, direction: str, times: int, element: int) -> Transfer:
        """Partial sums over the whole sequence, to shards of it."""
        return self.over(("tp",), module, "reduce_scatter", direction, times, self.numbers * self.layout.tp * element)

    @property
    def recomputes(self) -> bool:
        return self.layout.recompute != "none"

    def embedding(self) -> Iterator[Transfer]:
        """Each rank looks up its rows of the vocabulary; what the others have is added."""
        yield self.scatter("embedding", "forward", 1, self.width.weight)
        yield self.gather("embedding", "backward", 1, self.width.weight)

    def attention(self, layers: int) -> Iterator[Transfer]:
        for direction in ("forward", "backward", *(["backward"] if self.recomputes else [])):
            yield self.gather("attention", direction, layers, self.width.compute)
            yield self.scatter("attention", direction, layers, self.width.compute)

    def feed_forward(self, module: str, layers: int) -> Iterator[Transfer]:
        """Recomputation stops at the last activation that is asked for, so it does not scatter again."""
        for direction in ("forward", "backward"):
            yield self.gather(module, direction, layers, self.width.compute)
            yield self.scatter(module, direction, layers, self.width.compute)
        if self.recomputes:
            yield self.gather(module, "backward", layers, self.width.compute)

    def balance(self, layers: int) -> Iterator[Transfer]:
        """Sums over each sequence: counts and scores of all experts, z, entropy, dropped, tokens. Backward needs no
        more: each rank keeps the gradient of its own share."""
        given = self.step.sequences * (2 * self.config.num_experts + 4) * self.width.wide
        for direction in ("forward", *(["backward"] if self.layout.recompute == "full" else [])):
            yield self.over(("tp",), "router", "all_reduce", direction, layers, given)

    def experts(self, layers: int) -> Iterator[Transfer]:
        """Rows go there and come back, and so do their gradients. Where the router decides how many, each rank first
        tells the others."""
        config, layout = self.config, self.layout
        counts = config.num_experts * layout.etp * INT64
        rows = rows_sent(self.step) * config.d_model * self.width.compute
        for direction in ("forward", *(["backward"] if layout.recompute == "full" else [])):
            if config.capacity_factor is None:
                yield self.over(("ep", "etp"), "experts", "all_to_all", direction, layers, counts)
            yield self.over(("ep", "etp"), "experts", "all_to_all", direction, 2 * layers, rows)
        yield self.over(("ep", "etp"), "experts", "all_to_all", "backward", 2 * layers, rows)

    def head_and_loss(self) -> Iterator[Transfer]:
        """The loss over a cut vocabulary: each token's largest logit, the sum of its exponentials, its target's."""
        yield self.gather("head", "forward", 1, self.width.compute)
        yield self.scatter("head", "backward", 1, self.width.compute)
        yield self.over(("tp",), "head", "all_reduce", "forward", 3, self.step.tokens * self.width.wide)

    def messages(self) -> Iterator[Transfer]:
        """Activations on, gradients back, but between two stages of one rank."""
        stage, rank_of = self.part.stage, self.step.rank_of_stage
        for neighbour, there, back in ((stage + 1, "send", "recv"), (stage - 1, "recv", "send")):
            if 0 <= neighbour < self.layout.stages and rank_of[neighbour] != rank_of[stage]:
                given = self.numbers * self.width.weight
                for collective, direction in ((there, "forward"), (back, "backward")):
                    sent = self.over(("pp",), "boundary", collective, direction, 1, given)
                    yield sent._replace(neighbour=neighbour)


# -- a step -------------------------------------------------------------------------------------------------------


def _once_a_step(step: Step, pp_rank: int) -> Iterator[Transfer]:
    layout, parts = step.layout, step.parts_on(pp_rank)
    if layout.dp_mode == "shard":
        yield from _shards(step, parts)
    yield from _gradients(step, parts)
    yield _once(step, WORLD, "gradient norm", "all_reduce", "step", 2 * DOUBLE)  # and whether a rank calls the others
    yield from _logged(step)


def _once(
    step: Step, axes: tuple[str, ...], module: str, collective: str, direction: str, given: int, calls: int = 1
) -> Transfer:
    return Transfer(None, module, group_over(axes, step.layout), collective, direction, calls, given)


def _gradients(step: Step, parts: list[Part]) -> Iterator[Transfer]:
    """Weights that are whole on every rank of tp have partial gradients there; all weights have replicas over dp,
    experts over edp. Where the expert axes are the dense ones, dp and edp are one flat all-reduce."""
    element = width_of(step.precision).weight
    held = [parameters_of(step.config, step.layout, part, sharded=False) for part in parts]
    whole = sum(kinds.whole for kinds in held) * element
    dense = sum(kinds.divided_over_tp for kinds in held) * element
    experts = sum(kinds.experts for kinds in held) * element
    yield _once(step, ("tp",), "gradients", "all_reduce", "step", whole)
    if step.layout.dp_mode == "shard":
        yield _once(step, ("dp",), "gradients", "all_reduce", "step", whole)
    elif step.expert_axes_are_tp:
        yield _once(step, ("dp",), "gradients", "all_reduce", "step", whole + dense + experts)
    else:
        yield _once(step, ("dp",), "gradients", "all_reduce", "step", whole + dense)
        yield _once(step, ("edp",), "gradients", "all_reduce", "step", experts, 1 if experts else 0)


def _shards(step: Step, parts: list[Part]) -> Iterator[Transfer]:
    """Each layer, and what is left of a part, is gathered and its gradient scattered once a step, however many
    batches that has; experts on their own where their replicas are others."""
    for part in parts:
        for layer in part.layers:
            only = Part(part.stage, range(layer, layer + 1), False, False)
            held = parameters_of(step.config, step.layout, only, sharded=False)
            dense, experts = held.divided_over_tp, held.experts
            if step.expert_axes_are_tp:
                dense, experts = dense + experts, 0
            yield from _unit(step, ("dp",), dense)
            yield from _unit(step, ("edp",), experts)
        ends = part.first + part.last
        yield from _unit(step, ("dp",), ends * embedding_parameters(step.config) // step.layout.tp)


def _unit(step: Step, axes: tuple[str, ...], numbers: int) -> Iterator[Transfer]:
    given = numbers * width_of(step.precision).weight
    if given:
        shard = given // group_over(axes, step.layout).size
        yield _once(step, axes, "weights", "all_gather", "forward", shard)
        yield _once(step, axes, "weights", "reduce_scatter", "step", given)


def _logged(step: Step) -> Iterator[Transfer]:
    """After each batch: the loss, and the table of all layers' statistics and loads."""
    numbers = step.config.num_layers * (STATISTICS + step.config.num_experts)
    for given in (DOUBLE, numbers * DOUBLE):
        yield _once(step, ("pp", "dp"), "log", "all_reduce", "step", given, step.accumulate)
