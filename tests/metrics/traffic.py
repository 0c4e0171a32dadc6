"""What one rank must send in one optimizer step: the design's "How a step runs" as arithmetic on model, layout and
batch. No torch, and nothing of the ledger's.

Experts are balanced: every rank sends every other equally many rows.
"""

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from project.model.config import ModelConfig
from project.model.cost import (
    attention_parameters,
    embedding_parameters,
    expert_parameters,
    router_parameters,
    stage_costs,
)
from project.parallel.layout import Coordinates, ParallelLayout
from project.pipeline.partition import Costs, Part, partition
from project.pipeline.placement import stage_to_rank

# The first that has a group's ranks names it.
AXES = (("pp",), ("dp",), ("tp",), ("pp", "dp"), ("edp",), ("ep",), ("etp",), ("ep", "etp"))
DENSE, EXPERT = ("pp", "dp", "tp"), ("pp", "edp", "ep", "etp")
FLOAT, DOUBLE, INT64 = 4, 8, 8
STATISTICS = 4  # of a layer in the table that is logged: auxiliary loss, z-loss, entropy, dropped fraction


def on_the_wire(collective: str, given: Fraction, ranks: int) -> int:
    factor = {
        "all_reduce": Fraction(2 * (ranks - 1), ranks),
        "reduce_scatter": Fraction(ranks - 1, ranks),
        "all_to_all": Fraction(ranks - 1, ranks),
        "all_gather": ranks - 1,
        "send": 1,
        "recv": 0,
    }
    return ceil(given * factor[collective])


@dataclass
class Step:
    """`batch` counts the sequences over all replicas; `element` is the bytes of a weight and of an activation."""

    config: ModelConfig
    layout: ParallelLayout
    rank: int
    batch: int
    seq_len: int
    accumulate: int = 1
    element: int = FLOAT

    def __post_init__(self) -> None:
        self.lines: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(lambda: [0, 0])))
        layout, config = self.layout, self.config
        costs = Costs(*stage_costs(config, config.max_seq_len))
        here = layout.coordinates(self.rank).pp
        self.stage_to_rank = stage_to_rank(layout)
        self.parts: list[Part] = [part for part in partition(costs, layout) if self.stage_to_rank[part.stage] == here]
        self.microbatches = layout.microbatches * self.accumulate
        self.sequences = self.batch // (layout.dp * layout.microbatches)
        self.tokens = self.sequences * self.seq_len
        # The residual stream of one microbatch: this rank's part of its sequences.
        self.stream = Fraction(self.tokens * config.d_model * self.element, layout.tp)

    # -- the book ---------------------------------------------------------------------------------------------

    def add(self, axes: tuple[str, ...], collective: str, direction: str, calls: int, given: Fraction | int) -> None:
        """`calls` operations, each given so many bytes by this rank."""
        ranks = self.ranks(axes)
        if len(ranks) > 1 and calls:
            line = self.lines[self.name(ranks)][collective][direction]
            line[0] += calls
            line[1] += calls * on_the_wire(collective, Fraction(given), len(ranks))

    def ranks(self, axes: tuple[str, ...]) -> list[int]:
        """Those that differ from this one along `axes` alone; of no axes all."""
        if not axes:
            return list(range(self.layout.world_size))
        fixed = [axis for axis in (DENSE if set(axes) <= set(DENSE) else EXPERT) if axis not in axes]

        def others(rank: int) -> list[int]:
            at: Coordinates = self.layout.coordinates(rank)
            return [getattr(at, axis) for axis in fixed]

        return [rank for rank in range(self.layout.world_size) if others(rank) == others(self.rank)]

    def name(self, ranks: list[int]) -> str:
        return next(("_".join(axes) for axes in AXES if self.ranks(axes) == ranks), "world")

    def table(self) -> dict:
        """As the ledger has it."""
        return {
            axis: {
                collective: {
                    "calls": sum(calls for calls, _ in directions.values()),
                    "bytes": sum(sent for _, sent in directions.values()),
                    **{direction: {"calls": calls, "bytes": sent} for direction, (calls, sent) in directions.items()},
                }
                for collective, directions in collectives.items()
            }
            for axis, collectives in self.lines.items()
        }

    # -- a microbatch -----------------------------------------------------------------------------------------

    def gather(self, direction: str) -> None:
        """The sequence shards of every microbatch, to the whole sequence."""
        self.add(("tp",), "all_gather", direction, self.microbatches, self.stream)

    def scatter(self, direction: str) -> None:
        """Partial sums over the whole sequence, to sequence shards."""
        self.add(("tp",), "reduce_scatter", direction, self.microbatches, self.stream * self.layout.tp)

    @property
    def recomputes(self) -> bool:
        return self.layout.recompute != "none"

    def embedding(self) -> None:
        """Each rank looks up its rows of the vocabulary; what the others have is added."""
        self.scatter("forward")
        self.gather("backward")

    def attention(self) -> None:
        for direction in ("forward", "backward", *(["backward"] if self.recomputes else [])):
            self.gather(direction)
            self.scatter(direction)

    def feed_forward(self) -> None:
        """Recomputation stops at the last activation that is asked for, so it does not scatter again."""
        for direction in ("forward", "backward"):
            self.gather(direction)
            self.scatter(direction)
        if self.recomputes:
            self.gather("backward")

    def balance(self) -> None:
        """Sums over each sequence: counts and scores of all experts, z, entropy, dropped, tokens. Backward needs no
        more: each rank keeps the gradient of its own share."""
        given = self.sequences * (2 * self.config.num_experts + 4) * FLOAT
        for direction in ("forward", *(["backward"] if self.layout.recompute == "full" else [])):
            self.add(("tp",), "all_reduce", direction, self.microbatches, given)

    def experts(self) -> None:
        config, layout = self.config, self.layout
        counts = config.num_experts * layout.etp * INT64
        rows = self.stream * config.top_k * layout.etp

        def there_and_back(direction: str) -> None:
            self.add(("ep", "etp"), "all_to_all", direction, 2 * self.microbatches, rows)

        for direction in ("forward", *(["backward"] if layout.recompute == "full" else [])):
            self.add(("ep", "etp"), "all_to_all", direction, self.microbatches, counts)
            there_and_back(direction)
        there_and_back("backward")

    def head_and_loss(self) -> None:
        """The loss over a cut vocabulary: each token's largest logit, the sum of its exponentials, its target's."""
        self.gather("forward")
        self.scatter("backward")
        self.add(("tp",), "all_reduce", "forward", 3 * self.microbatches, self.tokens * FLOAT)

    def messages(self, stage: int) -> None:
        """Activations on, gradients back, but between two stages of one rank."""
        for neighbour, there, back in ((stage + 1, "send", "recv"), (stage - 1, "recv", "send")):
            if 0 <= neighbour < self.layout.stages and self.stage_to_rank[neighbour] != self.stage_to_rank[stage]:
                self.add(("pp",), there, "forward", self.microbatches, self.stream)
                self.add(("pp",), back, "backward", self.microbatches, self.stream)

    # -- a step -----------------------------------------------------------------------------------------------

    def gradients(self) -> None:
        """Weights that are whole on every rank of tp have partial gradients there; all weights have replicas over dp,
        experts over edp. Where the expert axes are the dense ones, dp and edp are one flat all-reduce."""
        whole, dense, experts = (numbers * self.element for numbers in self.weights())
        self.add(("tp",), "all_reduce", "step", 1, whole)
        if self.layout.dp_mode == "shard":
            self.add(("dp",), "all_reduce", "step", 1, whole)
        elif (self.layout.ep, self.layout.etp) == (self.layout.tp, 1):
            self.add(("dp",), "all_reduce", "step", 1, whole + dense + experts)
        else:
            self.add(("dp",), "all_reduce", "step", 1, whole + dense)
            self.add(("edp",), "all_reduce", "step", 1, experts)

    def weights(self) -> tuple[int, int, int]:
        """This rank's: whole over tp, divided over tp, divided over ep and etp."""
        config, layout = self.config, self.layout
        layers = [layer for part in self.parts for layer in part.layers]
        with_experts = [layer for layer in layers if layer in config.moe_layers]
        last = sum(part.last for part in self.parts)
        ends = sum(part.first for part in self.parts) + last
        whole = (2 * len(layers) + last) * config.d_model + len(with_experts) * router_parameters(config)
        feed_forward = (len(layers) - len(with_experts)) * 3 * config.d_model * config.dense_d_ff
        shared = len(with_experts) * config.num_shared_experts * expert_parameters(config)
        dense = len(layers) * attention_parameters(config) + feed_forward + shared + ends * embedding_parameters(config)
        experts = len(with_experts) * config.num_experts * expert_parameters(config)
        return whole, dense // layout.tp, experts // (layout.ep * layout.etp)

    def shards(self) -> None:
        """Each layer, and what is left of a part, is gathered and its gradient scattered once a step, however many
        batches that has; experts on their own where their replicas are others."""
        config, layout = self.config, self.layout
        same = (layout.ep, layout.etp) == (layout.tp, 1)
        for part in self.parts:
            for layer in part.layers:
                has_experts = layer in config.moe_layers
                beside = config.num_shared_experts * expert_parameters(config)
                feed_forward = beside if has_experts else 3 * config.d_model * config.dense_d_ff
                experts = has_experts * config.num_experts * expert_parameters(config)
                experts = Fraction(experts, layout.ep * layout.etp)
                dense = Fraction(attention_parameters(config) + feed_forward, layout.tp)
                self.unit(("dp",), dense + (experts if same else 0))
                if not same:
                    self.unit(("edp",), experts)
            self.unit(("dp",), Fraction((part.first + part.last) * embedding_parameters(config), layout.tp))

    def unit(self, axes: tuple[str, ...], numbers: Fraction) -> None:
        given = numbers * self.element
        if given:
            self.add(axes, "all_gather", "forward", 1, given / len(self.ranks(axes)))
            self.add(axes, "reduce_scatter", "step", 1, given)

    def norm(self) -> None:
        self.add((), "all_reduce", "step", 1, DOUBLE)

    def logged(self) -> None:
        """After each batch: the loss, and the table of all layers' statistics and loads."""
        table = self.config.num_layers * (STATISTICS + self.config.num_experts)
        self.add(("pp", "dp"), "all_reduce", "step", self.accumulate, DOUBLE)
        self.add(("pp", "dp"), "all_reduce", "step", self.accumulate, table * DOUBLE)


def expected(step: Step) -> dict:
    for part in step.parts:
        if part.first:
            step.embedding()
        for layer in part.layers:
            step.attention()
            if layer in step.config.moe_layers:
                step.balance()
                step.experts()
                if step.config.num_shared_experts:
                    step.feed_forward()
            else:
                step.feed_forward()
        if part.last:
            step.head_and_loss()
        step.messages(part.stage)
    if step.layout.dp_mode == "shard":
        step.shards()
    step.gradients()
    step.norm()
    step.logged()
    return step.table()
