"""Bytes that autograd keeps on a rank from a stage's forward for its backward, storage by storage, as the model's
operations save them (torch 2.13). The tests hold the sums to `project.observe.activations`, which counts storages.

A microbatch has B sequences of S tokens; between the matrices a rank of tp has T = B S / tp of them. A token has k
assignments, and with expert slices (etp) k etp rows. Experts are taken to be balanced.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from project.planner.step import Step, rows_sent
from project.spec.model import ModelConfig
from project.spec.partition import Part
from project.spec.precision import INT32, INT64, width_of
from project.spec.schedules.in_flight import InFlight, peaks_in_flight
from project.spec.schedules.order import Order


class Kept(NamedTuple):
    """Bytes of one stage on one rank: of each microbatch in flight, by module; of those what the first half of a split
    backward gives back; and of the whole batch, whose tokens (or targets) are one storage however many microbatches
    see a part of it."""

    microbatch: dict[str, int]
    first_half: dict[str, int]
    batch: int

    def by_module(self, moment: InFlight) -> dict[str, int]:
        return {
            module: moment.all * size - moment.second_half * self.first_half.get(module, 0)
            for module, size in self.microbatch.items()
        }

    def at(self, moment: InFlight) -> int:
        return sum(self.by_module(moment).values()) + self.batch

    def peak(self, moments: set[InFlight]) -> InFlight:
        return max(moments, key=self.at)


def activation_peaks(step: Step, order: Order) -> list[int]:
    """By stage: with as many microbatches in flight as the schedule has there."""
    split = step.layout.recompute == "none"
    moments = {stage: found for row in order for stage, found in peaks_in_flight(row, split).items()}
    stages = [kept(step, part) for part in step.parts]
    return [here.at(here.peak(moments[stage])) for stage, here in enumerate(stages)]


def kept(step: Step, part: Part) -> Kept:
    layers = _Layers(step)
    found: Counter[str] = Counter()
    with_experts = len([layer for layer in part.layers if layer in step.config.moe_layers])
    kinds = ((layers.with_experts, with_experts), (layers.dense, len(part.layers) - with_experts))
    for kind, number in kinds:
        for module, size in (kind() if number else {}).items():
            found[module] += number * size
    if part.last:
        found.update(layers.head())
    batch = step.batch // step.layout.dp * step.seq_len * INT64
    return Kept(dict(found), layers.above_all_weights(part), batch * (part.first + part.last))


def recomputed_layer(step: Step) -> int:
    """What comes back while a layer is recomputed: all that the largest kind of layer would have kept."""
    layers, config = _Layers(step), step.config
    if step.layout.recompute == "none":
        return 0
    kinds = [layers.dense_whole] * (config.num_dense_layers > 0) + [layers.moe_whole] * (len(config.moe_layers) > 0)
    return max(sum(kind().values()) for kind in kinds)


class _Layers:
    def __init__(self, step: Step) -> None:
        self.step, self.config, self.layout = step, step.config, step.layout
        self.width = width_of(step.precision)
        self.all_tokens = step.tokens
        self.tokens = step.tokens // step.layout.tp
        self.gathers = step.layout.tp > 1
        self.casts = self.width.compute < self.width.weight  # autocast: weights are copied for each microbatch
        self.widens = self.width.weight < self.width.wide  # half precision throughout: norms and router copy to fp32

    # -- layers -------------------------------------------------------------------------------------------------

    def dense(self) -> dict[str, int]:
        return self.dense_whole() if self.layout.recompute == "none" else {"layer inputs": self.stream()}

    def with_experts(self) -> dict[str, int]:
        """Recomputed layers keep the router's choice in any case (scores and experts of each assignment), and if
        selective what was exchanged: counts, rows there and back, sums over sequences."""
        if self.layout.recompute == "none":
            return self.moe_whole()
        choice = self.tokens * self.config.top_k * (self.width.wide + INT64)
        kept = {"layer inputs": self.stream(), "router": choice}
        if self.layout.recompute == "selective":
            kept["router"] += self.sums()
            if self.exchanges:
                counts = self.config.num_experts * self.layout.etp * INT64
                row = self.config.d_model * self.width.compute
                told = 0 if self.config.capacity_factor is not None else counts
                kept["dispatch"] = told + 2 * rows_sent(self.step) * row
        return kept

    def dense_whole(self) -> dict[str, int]:
        return {
            "norms": 2 * self.norm(),
            "attention": self.attention(),
            "feed_forward": self.feed_forward(self.config.dense_d_ff),
        }

    def moe_whole(self) -> dict[str, int]:
        shared = self.config.num_shared_experts * self.config.d_ff
        kept = {
            "norms": 2 * self.norm(),
            "attention": self.attention(),
            "router": self.router(),
            "dispatch": self.dispatch(),
            "experts": self.experts(),
        }
        if shared:
            kept["shared"] = self.feed_forward(shared)
            if not self.gathers and not self.casts and not self.widens:
                kept["shared"] -= self.input_of_product()  # which the router keeps as well
        return kept

    def above_all_weights(self, part: Part) -> dict[str, int]:
        """What only the gradients of a stage's inputs need, none of its weights', for no weight is nearer to the end:
        the loss; or after experts the choice's weights and balance, and the way back."""
        if part.last:
            return {"logits": self.head()["logits"]}
        if part.layers and part.layers[-1] in self.config.moe_layers:
            return {"router": self.choice(), "dispatch": self.combination()}
        return {}

    def stream(self) -> int:
        """What is between the layers: the input of each."""
        return self.tokens * self.config.d_model * self.width.weight

    # -- modules ------------------------------------------------------------------------------------------------

    def norm(self) -> int:
        """Its input in fp32, the root of the mean square, and the normalised."""
        return self.tokens * (2 * self.config.d_model + 1) * self.width.wide

    def input_of_product(self) -> int:
        """Of the matrices that share it: the whole sequence."""
        return self.all_tokens * self.config.d_model * self.width.compute

    def weights(self, numbers: int) -> int:
        """Copies that autocast makes of them."""
        return numbers * self.width.compute if self.casts else 0

    def attention(self) -> int:
        """The input; q, k, v and the output of flash attention, and the logarithms of its sums; tables of sines and
        cosines for q and for k where they are not fp32."""
        config, tp, width = self.config, self.layout.tp, self.width
        heads, kv_heads = config.num_heads // tp, config.num_kv_heads // tp
        inside = 2 * (heads + kv_heads) * config.head_dim
        tables = 0 if width.compute == 4 else 4 * self.step.seq_len * config.head_dim * width.compute
        numbers = config.d_model * inside
        return (
            self.input_of_product()
            + self.all_tokens * (inside * width.compute + heads * width.wide)
            + tables
            + self.weights(numbers)
        )

    def feed_forward(self, hidden: int) -> int:
        """The input; gate, its SiLU, up, and their product."""
        hidden //= self.layout.tp
        return (
            self.input_of_product()
            + 4 * self.all_tokens * hidden * self.width.compute
            + self.weights(3 * hidden * self.config.d_model)
        )

    def router(self) -> int:
        """In fp32 the input and, in half precision, the weights; and the choice."""
        config, wide = self.config, self.width.wide
        weights = config.num_experts * config.d_model * wide if self.widens else 0
        return weights + self.tokens * config.d_model * wide + self.choice()

    def choice(self) -> int:
        """Scores and logits; the choice; what it is normalised by; and sums over sequences of what balances."""
        config, wide = self.config, self.width.wide
        per_token = 2 * config.num_experts * wide + config.top_k * (INT64 + wide)
        # The sum of the chosen scores, twice, and the logarithm of all logits; of sigmoids also the sum of all, twice.
        scalars = 5 if config.score == "sigmoid" else 3
        balance = 2 * self.pooled() * config.num_experts * wide
        return self.tokens * (per_token + scalars * wide) + self.sums(self.pooled()) + balance

    def pooled(self) -> int:
        return self.step.sequences if self.config.auxiliary_per == "sequence" else 1

    def sums(self, sequences: int | None = None) -> int:
        sequences = self.step.sequences if sequences is None else sequences
        return sequences * (2 * self.config.num_experts + 4) * self.width.wide

    @property
    def exchanges(self) -> bool:
        return self.layout.ep * self.layout.etp > 1

    def dispatch(self) -> int:
        """Orders of rows on their way there, and again among a rank's several experts; and what `combination` keeps."""
        return self.assigned * INT64 + self.order_among_experts() + self.combination()

    def combination(self) -> int:
        """Orders of rows on their way back, the rows that came back, and their weights. With a capacity the order is of
        slots, and one to spare."""
        returned = self.assigned if self.config.capacity_factor is None else rows_sent(self.step) + 1
        rows = self.assigned * (self.config.d_model + 1) * self.width.compute
        return returned * INT64 + self.order_among_experts() + rows

    @property
    def assigned(self) -> int:
        return self.tokens * self.config.top_k * self.layout.etp

    def order_among_experts(self) -> int:
        several = self.exchanges and self.config.num_experts > self.layout.ep
        return rows_sent(self.step) * INT64 * several

    def experts(self) -> int:
        """Rows, gate, its SiLU, up, and their product; where each expert's rows end, for a grouped product."""
        config, layout, width = self.config, self.layout, self.width
        hidden, here = config.d_ff // layout.etp, config.num_experts // layout.ep
        rows = rows_sent(self.step)  # as many come
        ends = here * INT32 if is_grouped(config, hidden, width.compute) else 0
        return (
            rows * (config.d_model + 4 * hidden) * width.compute
            + ends
            + self.weights(3 * here * hidden * config.d_model)
        )

    def head(self) -> dict[str, int]:
        """The final norm and the matrix's input; logarithms of probabilities, and the sum of the targets' weights."""
        vocabulary = self.config.vocab_size // self.layout.tp
        return {
            "norms": self.norm(),
            "head": self.input_of_product() + self.weights(vocabulary * self.config.d_model),
            "logits": self.all_tokens * vocabulary * self.width.wide + self.width.wide,
        }


def is_grouped(config: ModelConfig, hidden: int, element: int) -> bool:
    """As `project.model.experts.grouped_gemm_takes`."""
    return element != 8 and all(size * element % 16 == 0 for size in (hidden, config.d_model))
