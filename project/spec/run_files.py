"""The form of a run folder's files, as far as pages and tables read them. Whoever hands a folder on may have changed
its files, so that each is held to its form before a key of it is used; further keys are let through."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, ValidationError

from project.spec.untrusted import Unreadable, as_mapping, read_json

Count = Annotated[int, Ge(0), Le(2**62)]
Degree = Annotated[int, Ge(1), Le(2**20)]
Figure = Annotated[float, Ge(-1e300), Le(1e300)]


class Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Sent(Form):
    calls: Figure
    bytes: Figure
    seconds: Figure | None = None


Traffic = dict[str, dict[str, Sent]]


class Layout(Form):
    pp: Degree | None = None
    dp: Degree | None = None
    tp: Degree | None = None
    ep: Degree | None = None
    etp: Degree | None = None
    world_size: Degree | None = None
    microbatches: Degree | None = None
    virtual_stages: Degree | None = None
    schedule: str | None = None


class Rank(Form):
    """A rank of a summary or of a plan."""

    rank: Count
    pp: Count
    dp: Count
    tp: Count
    layers: list[Count]
    experts: list[Count] | None = None
    parameters: Count
    memory: dict[str, Figure] | None = None
    node: Count | None = None
    gpu: Count | None = None


class Figures(Form):
    """Figures that a plan predicts and a run measures."""

    step_time_s: Figure | None = None
    tokens_per_second: Figure | None = None
    mfu: Figure | None = None
    bubble: Figure | None = None
    parameters_per_rank: list[Count] | None = None
    peak_memory_bytes_per_rank: list[Figure] | None = None
    activation_bytes_peak_per_stage: list[Figure | None] | None = None
    communication: Traffic | None = None


class Summary(Figures):
    """`summary.json`."""

    status: str | None = None
    error: str | None = None
    layout: Layout | None = None
    ranks: list[Rank] | None = None
    device: str | None = None
    precision: str | int | None = None
    steps: Count | None = None
    tokens: Count | None = None
    train_loss_first: Figure | None = None
    train_loss_last: Figure | None = None
    val_loss: Figure | None = None
    time_to_first_step_s: Figure | None = None
    memory_by_category_per_rank: list[dict[str, Figure]] | None = None
    planned: Figures | None = None


class TracedStep(Form):
    start_us: Figure
    seconds: Figure


class TraceSteps(Form):
    steps: dict[Annotated[str, "a step's number"], TracedStep] = {}


class Event(Form):
    ph: str
    tid: int | None = None
    pid: int | None = None
    ts: Figure | None = None
    dur: Figure | None = None
    name: str | None = None
    cat: str | None = None
    args: dict[str, Any] = {}


class Trace(Form):
    """`trace.json`."""

    metadata: TraceSteps = TraceSteps()
    traceEvents: list[Event] = []


class Planned(Form):
    """An action of a plan's timeline."""

    rank: Count
    stage: Count
    action: str
    microbatch: Count | None
    start_s: Figure
    end_s: Figure


class Plan(Form):
    """`plan.json`."""

    ranks: list[dict[str, Any]] | None = None
    communication: Traffic | None = None
    timeline: list[Planned] | None = None
    claims: list[dict[str, Any]] | None = None


class Row(Figures):
    """A job of `sweep.json`."""

    job: str
    status: str
    error: str | None = None
    overrides: list[str] | None = None


class Sweep(Form):
    """`sweep.json`."""

    jobs: list[Row]


def read_form(form: type[BaseModel], path: Path, inside: Path | None = None) -> dict[str, Any]:
    """The file's content as it is, after it was held to its form.

    Raises:
        Unreadable: naming the first key that is missing or has a value of another kind.
    """
    content = as_mapping(path, read_json(path, inside))
    hold(form, path, content)
    return content


def hold(form: type[BaseModel], path: Path, content: Any) -> None:
    """Raises `Unreadable` as `read_form`."""
    try:
        form.model_validate(content)
    except ValidationError as error:
        raise Unreadable(path, first_fault(error)) from None


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found: the key, the value and what it should be."""
    first = error.errors(include_url=False)[0]
    value = "" if first["type"] == "missing" else f"={str(first['input'])[:60]}"
    return f"has {'.'.join(map(str, first['loc']))}{value}: {first['msg']}"
