"""A check whether a stage applies a weight twice in series. torch computes the gradients of inputs and weights apart
only where it does not: between the two applications it would run the same nodes of autograd's graph for both halves,
and fails with "backward through the graph a second time"."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor


def applies_a_weight_twice_in_series(inputs: Iterable[Any], outputs: Iterable[Any]) -> bool:
    """True if some leaf of the graph besides `inputs` is applied to what an earlier application of it has computed."""
    given = {id(tensor) for tensor in inputs if isinstance(tensor, Tensor)}
    bits: dict[object, int] = {}  # one for each leaf that is no input
    weights: dict[object, int] = {}  # of a node, the leaves that it is computed of
    on_stream: dict[object, bool] = {}  # whether it is computed of an input
    for node in computed_first([t.grad_fn for t in outputs if isinstance(t, Tensor) and t.grad_fn is not None]):
        below = [each for each, _ in node.next_functions if each is not None]
        if hasattr(node, "variable"):
            on_stream[node] = id(node.variable) in given
            weights[node] = 0 if on_stream[node] else bits.setdefault(node, 1 << len(bits))
            continue
        stream = weight = 0
        for each in below:
            if on_stream[each]:
                stream |= weights[each]
            else:
                weight |= weights[each]
        on_stream[node] = any(on_stream[each] for each in below)
        if on_stream[node] and stream & weight:
            return True
        weights[node] = stream | weight
    return False


def computed_first(roots: Iterable[Any]) -> Iterable[Any]:
    """Yields the nodes of autograd's graph below `roots`, each once, after those that it is computed of."""
    done: set[object] = set()
    waiting = [(root, False) for root in roots]
    while waiting:
        node, is_below_done = waiting.pop()
        if node in done:
            continue
        if is_below_done:
            done.add(node)
            yield node
        else:
            waiting.append((node, True))
            waiting += [(each, False) for each, _ in node.next_functions if each is not None and each not in done]
