"""One row of a layer's table: an operation that a rank runs for one microbatch, and everything that is counted of it.

Parameters, FLOPs, bytes kept for the backward, traffic, seconds, the parallel plan and the weights' names in Hugging
Face's format are all read off such rows. Numbers are those of one rank under a `Shape`.
"""

from typing import Literal, NamedTuple

Axes = tuple[str, ...]
TP: Axes = ("tp",)
EXPERT: Axes = ("ep", "etp")

Recomputed = Literal["core", "kernel", "other"]
"""Class of an operation by what selective recomputation repeats: attention's core; the norms and nonlinearities; the
rest."""


class Shape(NamedTuple):
    """One microbatch of one replica under a layout: `sequences` of `seq_len` tokens. `imbalance` is the load of the
    busiest rank's experts over the mean."""

    sequences: int
    seq_len: int
    tp: int = 1
    ep: int = 1
    etp: int = 1
    imbalance: float = 1.0

    @property
    def tokens(self) -> int:
        """In the whole sequences. Between the matrices a rank of tp has `tokens / tp` of them."""
        return self.sequences * self.seq_len

    def ranks(self, axes: Axes) -> int:
        return self.tp if axes == TP else self.ep * self.etp if axes == EXPERT else getattr(self, axes[0])


class Weight(NamedTuple):
    """A parameter: its name relative to the layer, its whole shape, and for each dim the axis that divides it. `theirs`
    is its name in the layer of transformers' model of the same family (`names.py`), `{expert}` standing for the first
    dim's index; None where no family has such a weight."""

    name: str
    shape: tuple[int, ...]
    split: tuple[str | None, ...]
    theirs: str | None = None

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def numbers(self) -> int:
        """Elements of the whole."""
        found = 1
        for size in self.shape:
            found *= size
        return found


class Gemm(NamedTuple):
    """`batch` products of `[m, k]` with `[k, n]`. `m` is a mean, no whole number, where experts share rows unevenly."""

    m: float
    n: int
    k: int
    batch: int = 1

    @property
    def flops(self) -> float:
        return 2 * self.m * self.n * self.k * self.batch


class Products(NamedTuple):
    """Matrix products of the forward, of the backward for the inputs and of the backward for the weights.

    `fused` is the forward FLOPs of a fused attention, which computes the causal half of the scores alone; its backward
    takes `FUSED_BACKWARD` times as many.
    """

    forward: tuple[Gemm, ...] = ()
    inputs: tuple[Gemm, ...] = ()
    weights: tuple[Gemm, ...] = ()
    fused: float = 0


FUSED_BACKWARD = 2.5
"""The scores are computed again: five products for two (Dao, arXiv 2307.08691)."""

NONE = Products()


def linear(tokens: float, out: int, inner: int, batch: int = 1) -> Products:
    """`[tokens, inner]` to `[tokens, out]`; `batch` of them, each with weights of its own."""
    return Products(
        (Gemm(tokens, out, inner, batch),),
        (Gemm(tokens, inner, out, batch),),
        (Gemm(out, inner, tokens, batch),),  # type: ignore[arg-type]
    )


class Send(NamedTuple):
    """`calls` equal collectives over `axes` for a microbatch, each given `given` bytes by every rank.

    Where the layer is recomputed a forward's collective runs again in the backward: `always`; under full recomputation
    alone, for selective keeps its result (`unless kept`); or `never`, the recomputation having ended before it.

    `copies` counts how many of a token's copies `given` has where a dispatch sends a token once to a node. Bookkeeping
    (`payload=False`) is counted as traffic and left out of the seconds.
    """

    axes: Axes
    collective: str
    direction: Literal["forward", "backward"]
    given: int
    calls: int = 1
    again: Literal["always", "unless kept", "never"] = "always"
    copies: int = 1
    payload: bool = True

    @property
    def is_kept(self) -> bool:
        """Its result stays under selective recomputation."""
        return self.again == "unless kept"

    def is_repeated(self, recompute: str) -> bool:
        """In the backward of a layer that this trainer recomputes."""
        if self.direction == "backward" or recompute == "none" or self.again == "never":
            return False
        return recompute == "full" or not self.is_kept


class Keep(NamedTuple):
    """Bytes that autograd keeps for the backward. `made_by` is the class of the operation whose repetition would bring
    them back. `for_inputs`: nothing but the gradients of the stage's inputs needs them where the layer is its stage's
    last, so that the first half of a split backward gives them back. `once`: for all microbatches of the batch
    together, whatever is recomputed."""

    size: float
    made_by: Recomputed = "other"
    for_inputs: bool = False
    once: bool = False


class Operation(NamedTuple):
    """`name` is the module's relative to the layer, where the operation is one; `part` the heading under which its
    parameters, bytes and traffic are summed up.

    moved: bytes that elementwise kernels read and write, forward and backward.
    kernels: operators that the host dispatches beside matrix products and collectives, forward and backward.
    keeps: bytes kept for the backward when nothing is recomputed.
    stays: bytes kept when the layer is recomputed, besides the results of what is not sent again.
    recomputed: class of the operation by which selective recomputation repeats it.
    """

    name: str
    part: str
    weights: tuple[Weight, ...] = ()
    products: Products = NONE
    moved: tuple[float, float] = (0, 0)
    kernels: tuple[int, int] = (0, 0)
    keeps: tuple[Keep, ...] = ()
    stays: int = 0
    sends: tuple[Send, ...] = ()
    recomputed: Recomputed = "other"


Table = tuple[Operation, ...]
