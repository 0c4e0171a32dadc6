"""A collective that returns no `Work`, or one without a future, is recorded as one that ended when its call returned:
NCCL's synchronous ones have none since torch 2.8, nor have coalesced messages."""

from typing import Any

import pytest
import torch

from project.engine.instants import Instants
from project.observe import ledger
from project.observe.ledger import CollectiveSpan, CollectiveSpans

SPAN = CollectiveSpan("tp", "all_reduce", "forward", 8, 1, 2)


class Futureless:
    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def get_future(self) -> Any:
        raise self.error("no future")


@pytest.mark.parametrize("work", [None, Futureless(RuntimeError), Futureless(NotImplementedError)])
def test_a_collective_without_a_future_ended_when_its_call_returned(
    monkeypatch: pytest.MonkeyPatch, work: Futureless | None
) -> None:
    monkeypatch.setattr(ledger.Work, "unbox", staticmethod(lambda boxed: work), raising=False)
    monkeypatch.setattr(ledger.torch, "ScriptObject", str)
    spans = CollectiveSpans(Instants())
    spans.launched(SPAN, ([torch.ones(1)], "a boxed work"))
    assert spans.spans == [SPAN]


def test_a_call_that_returned_nothing_is_recorded_too() -> None:
    spans = CollectiveSpans(Instants())
    spans.launched(SPAN, None)
    assert spans.spans == [SPAN]
