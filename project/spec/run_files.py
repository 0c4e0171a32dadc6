"""The form of a run folder's files, as far as pages and tables read them. Whoever hands a folder on may have changed
its files, so that each is held to its form before a key of it is used; further keys are let through."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from project.spec.schedules.file import is_schedule_file
from project.spec.schedules.table import SCHEDULES
from project.spec.untrusted import Unreadable, as_mapping, read_json

Count = Annotated[int, Ge(0), Le(2**62)]
Degree = Annotated[int, Ge(1), Le(2**20)]
Figure = Annotated[float, Ge(-1e300), Le(1e300)]


class Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def refuse(wrong: bool, reason: str) -> None:
    if wrong:
        raise PydanticCustomError("form", "{reason}", {"reason": reason})


class Sent(Form):
    calls: Figure
    bytes: Figure
    seconds: Figure | None = None


Traffic = dict[str, dict[str, Sent]]


class Layout(Form):
    pp: Degree
    dp: Degree
    tp: Degree
    ep: Degree
    etp: Degree
    world_size: Degree
    microbatches: Degree
    virtual_stages: Degree
    schedule: str

    @model_validator(mode="after")
    def adds_up(self) -> Self:
        refuse(self.world_size != self.pp * self.dp * self.tp, "world_size is not pp x dp x tp")
        refuse((self.dp * self.tp) % (self.ep * self.etp) != 0, "ep x etp does not divide dp x tp")
        schedule = SCHEDULES.get(self.schedule)
        refuse(schedule is None and not is_schedule_file(self.schedule), f"schedule={self.schedule!r} is not known")
        other = schedule is not None and schedule.stages_a_rank not in (None, self.virtual_stages)
        refuse(other, f"virtual_stages={self.virtual_stages} is not what schedule={self.schedule} has")
        return self


class PlannedRank(Form):
    rank: Count
    dp: Count
    tp: Count
    layers: list[Count]
    experts: list[Count] | None = None
    parameters: Count
    memory: dict[str, Figure] | None = None
    node: Count | None = None
    gpu: Count | None = None


class Rank(PlannedRank):
    """A rank of a summary."""

    pp: Count


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
    gpu_memory_bytes_per_rank: list[dict[str, Count]] | None = None
    memory_by_category_per_rank: list[dict[str, Figure]] | None = None
    planned: Figures | None = None

    @model_validator(mode="after")
    def has_all_stages(self) -> Self:
        if self.layout and self.activation_bytes_peak_per_stage:
            stages = self.layout.pp * self.layout.virtual_stages
            other = len(self.activation_bytes_peak_per_stage) != stages
            refuse(other, f"activation_bytes_peak_per_stage is not of the layout's {stages} stages")
        return self


class TracedStep(Form):
    start_us: Figure
    seconds: Figure


class TraceSteps(Form):
    steps: dict[Annotated[str, StringConstraints(pattern=r"^\d{1,18}$")], TracedStep] = {}


class Of(Form):
    step: int | None = None
    microbatch: int | None = None


class Event(Form):
    ph: str
    tid: int | None = None
    pid: int | None = None
    ts: Figure | None = None
    dur: Figure | None = None
    name: str | None = None
    cat: str | None = None
    args: Of = Of()

    @property
    def is_drawn(self) -> bool:
        return self.ph == "X" and self.tid == 0 and self.args.step is not None

    @model_validator(mode="after")
    def is_whole(self) -> Self:
        lacks = None in (self.pid, self.ts, self.dur, self.name, self.cat)
        refuse(self.is_drawn and lacks, "a span of a step needs pid, ts, dur, name and cat")
        return self


class Trace(Form):
    """`trace.json`."""

    metadata: TraceSteps = TraceSteps()
    traceEvents: list[Event] = []

    @model_validator(mode="after")
    def has_the_steps(self) -> Self:
        lost = {str(event.args.step) for event in self.traceEvents if event.is_drawn} - self.metadata.steps.keys()
        refuse(bool(lost), f"metadata.steps lacks the step {min(lost, default='')}")
        return self


class Planned(Form):
    """An action of a plan's timeline."""

    rank: Count
    stage: Count
    action: Literal["F", "B", "I", "W"]
    microbatch: Count | None
    start_s: Figure
    end_s: Figure


class Claim(Form):
    claim: str
    quantity: str
    unit: str
    claimed: Figure | None
    found: Figure | None
    verdict: str
    difference: Figure | None
    by: Figure | None
    derivation: str

    @model_validator(mode="after")
    def is_whole(self) -> Self:
        refuse(self.verdict == "fails" and self.difference is None, "a claim that fails needs its difference")
        return self


class Plan(Form):
    """`plan.json`."""

    ranks: list[PlannedRank] | None = None
    communication: Traffic | None = None
    timeline: list[Planned] | None = None
    claims: list[Claim] | None = None


class Row(Figures):
    """A job of `sweep.json`."""

    job: str
    status: str
    error: str | None = None
    overrides: list[str] | None = None


class Sweep(Form):
    """`sweep.json`."""

    jobs: list[Row]
    number: Count | None = None


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
    if first["type"] == "form":
        return f"has {'.'.join(map(str, first['loc'])) or 'keys'} that do not go together: {first['msg']}"
    value = "" if first["type"] == "missing" else f"={str(first['input'])[:60]}"
    return f"has {'.'.join(map(str, first['loc']))}{value}: {first['msg']}"
