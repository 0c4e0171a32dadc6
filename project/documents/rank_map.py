"""A document's assignment of layers, experts and ranks to GPUs, line by line, against a layout and with itself."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from project.documents.statements import Statement


@dataclass(frozen=True)
class Place:
    """A place is what a line says of a GPU; None where it is silent. `layers` are the first and the last one of its
    stage."""

    line: int
    text: str
    gpu: int
    tp: int | None
    pp: int | None
    dp: int | None
    expert: int | None
    layers: tuple[int, int] | None


def rank_map(statements: Iterable[Statement]) -> list[Place]:
    return [place for statement in statements if (place := _place(statement)) is not None]


def _place(statement: Statement) -> Place | None:
    words = statement.words
    gpu = re.match(r"\W*(?:gpu|rank)\s*(\d{1,6})\s*[:,]", words)
    if gpu is None or not re.search(r"\b(?:tp|pp|dp|expert|stage)\b", words):
        return None

    def number(*names: str) -> int | None:
        hit = re.search(rf"\b(?:{'|'.join(names)})\s*(?:rank|stage)?\s*[:=]?\s*(\d{{1,6}})\b", words)
        return int(hit[1]) if hit else None

    around = f"{statement.heading} {statement.text}".lower().replace("\u2013", "-")
    layers = re.search(r"layers?\s*(\d{1,6})\s*-\s*(\d{1,6})", around)
    return Place(
        statement.line,
        statement.said,
        int(gpu[1]),
        tp=number("tp"),
        pp=number("pp", "stage"),
        dp=number("dp"),
        expert=number("expert", "ep"),
        layers=(int(layers[1]), int(layers[2])) if layers else None,
    )


def differences(place: Place, rank: dict[str, object]) -> Iterator[str]:
    """In what a line differs from a rank of `plan.json`."""
    stages, experts, layers = rank["stages"], rank["experts"], rank["layers"]
    assert isinstance(stages, list)
    assert isinstance(experts, list)
    assert isinstance(layers, list)
    if place.tp is not None and place.tp != rank["tp"]:
        yield f"TP rank {rank['tp']}"
    if place.dp is not None and place.dp != rank["dp"]:
        yield f"DP rank {rank['dp']}"
    if place.pp is not None and place.pp not in stages:
        yield f"stage {', '.join(map(str, stages))}"
    if place.expert is not None and place.expert not in experts:
        yield f"experts {', '.join(map(str, experts))}"
    if place.layers is not None and layers and list(range(place.layers[0], place.layers[1] + 1)) != layers:
        yield f"layers {', '.join(map(str, layers))}"


def map_contradictions(
    places: list[Place], experts: int | None, replicas: int, gpus: int | None, dp: int
) -> Iterator[str]:
    """GPUs that are placed twice or not there, and experts that a stage has more than `replicas` times or nowhere."""
    lines = defaultdict(list)
    for place in places:
        lines[place.gpu].append(place.line)
    for gpu, at in lines.items():
        if len(at) > 1:
            yield f"lines {', '.join(map(str, at))}: GPU {gpu} is assigned {len(at)} times"
    if gpus is not None and places and len(lines) not in (gpus, 0) and max(lines) + 1 == gpus:
        lost = sorted(set(range(gpus)) - set(lines))
        yield f"the rank map leaves out GPU {', '.join(map(str, lost[:8]))}"
    held_by = defaultdict(list)
    for place in places:
        if place.tp is not None and place.pp is not None:
            held_by[place.pp, place.dp, place.tp].append(place)
    for (pp, at_dp, tp), same in held_by.items():
        if len(same) > (dp if at_dp is None else 1):
            lines_of_them = ", ".join(str(place.line) for place in same)
            yield f"lines {lines_of_them}: TP rank {tp} of stage {pp} is {len(same)} GPUs"
    stages: dict[int | None, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place in places:
        if place.expert is not None:
            stages[place.pp][place.expert].append(place.line)
    for stage, held in stages.items():
        where = "" if stage is None else f" of stage {stage}"
        for expert, at in held.items():
            if len(at) > replicas:
                yield f"lines {', '.join(map(str, at))}: expert {expert}{where} is placed {len(at)} times"
        if experts is not None and len(held) > 1:
            for expert in sorted(set(range(experts)) - set(held))[:8]:
                yield f"expert {expert}{where} is placed nowhere"
