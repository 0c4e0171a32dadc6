"""Checks find what a document says that excludes something else that it says; they need no plan."""

import re
from collections import defaultdict
from collections.abc import Iterator
from math import prod
from typing import Any

from project.documents.claims import LAYERS_OF_STAGE
from project.documents.facts import Fact
from project.documents.rank_map import Place, map_contradictions
from project.documents.statements import Statement, plain

_PARTS = ("weight_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes", "buffer_bytes", "logits_bytes")
_EXPERTS_OF_RANK = r"\b(\d{1,6}) of (?:the )?\d{1,6} experts|\b(\d{1,6}) experts (?:per|on each) (?:gpu|rank)"
_DEGREES = ("tp", "pp", "dp", "cp")
_ONCE = (
    *(f"parallel.{axis}" for axis in ("tp", "pp", "dp", "ep", "etp", "virtual_stages", "microbatches")),
    *("model.num_layers", "model.top_k", "model.num_kv_heads", "model.head_dim", "model.vocab_size"),
    *("data.batch_size", "data.seq_len", "gpus"),
)


def contradictions(
    statements: list[Statement], facts: list[Fact], claims: list[dict[str, Any]], places: list[Place]
) -> list[str]:
    said = {fact.key: fact for fact in reversed(facts)}
    value = {key: fact.value for key, fact in said.items()}
    replicas = max(1, _replicas(value))
    return [
        *_two_values(facts),
        *_product(said),
        *_divisions(said, statements),
        *_sums(claims),
        *_latency_and_throughput(claims, statements),
        *_arithmetic(statements),
        *map_contradictions(
            places, value.get("model.num_experts"), replicas, value.get("gpus"), value.get("parallel.dp", 1)
        ),
        *_map_against_degrees(places, said),
    ]


def _lines(*numbers: int) -> str:
    distinct = sorted(set(numbers))
    return f"line{'s' if len(distinct) > 1 else ''} {', '.join(map(str, distinct))}"


def _replicas(value: dict[str, Any]) -> int:
    ranks = value.get("parallel.dp", 1) * value.get("parallel.tp", 1)
    return int(ranks // max(1, value.get("parallel.ep", 1)))


def _two_values(facts: list[Fact]) -> Iterator[str]:
    lines: dict[str, dict[Any, int]] = defaultdict(dict)
    for fact in facts:
        lines[fact.key].setdefault(fact.value, fact.line)
    for key in _ONCE:
        if len(lines[key]) > 1:
            listed = ", ".join(f"{value} (line {line})" for value, line in lines[key].items())
            first = next(iter(lines[key]))
            yield f"{key} has several values: {listed}; the first, {first}, is taken, unless {key}= is typed"


def _product(said: dict[str, Fact]) -> Iterator[str]:
    degrees = {axis: said[key] for axis in _DEGREES if (key := axis if axis == "cp" else f"parallel.{axis}") in said}
    if "gpus" not in said or len(degrees) < 2:
        return
    ranks, gpus = prod(fact.value for fact in degrees.values()), said["gpus"]
    whole = {"tp", "pp", "dp"} <= degrees.keys()
    if ranks != gpus.value and (whole or (ranks and gpus.value % ranks)):
        product = " x ".join(f"{axis} {fact.value}" for axis, fact in degrees.items())
        lines = _lines(*(fact.line for fact in (*degrees.values(), gpus)))
        yield f"{lines}: {product} = {ranks}, but the document has {gpus.value} GPUs"
    dp, tp, ep = (said[key].value if (key := f"parallel.{axis}") in said else None for axis in ("dp", "tp", "ep"))
    if dp and tp and ep and (dp * tp) % ep:
        yield f"ep {ep} does not divide dp {dp} x tp {tp} = {dp * tp}, the ranks of a stage"


def _divisions(said: dict[str, Fact], statements: list[Statement]) -> Iterator[str]:
    for what, of, by in (
        ("layers", "model.num_layers", "parallel.pp"),
        ("experts", "model.num_experts", "parallel.ep"),
        ("heads", "model.num_heads", "parallel.tp"),
    ):
        if of in said and by in said and said[by].value and said[of].value % said[by].value:
            axis = by.partition(".")[2]
            lines, parts = _lines(said[of].line, said[by].line), said[by].value
            yield f"{lines}: {said[of].value} {what} do not divide by {axis} {parts}"
    experts, ep = said.get("model.num_experts"), said.get("parallel.ep")
    for statement in statements:
        hit = re.search(r"\bexperts?\b[^.;]{0,80}?\b(\d{1,6}) (?:on each|per (?:gpu|rank)|each)\b", statement.words)
        hit = hit or re.search(_EXPERTS_OF_RANK, statement.words)
        if hit and experts and ep and ep.value and experts.value % ep.value == 0:
            each = int(next(group for group in hit.groups() if group))
            if each != experts.value // ep.value:
                yield (
                    f"line {statement.line}: {each} experts on each of {ep.value} ranks are {each * ep.value}, "
                    f"but there are {experts.value}; {experts.value // ep.value} would be right"
                )
    layers, pp = said.get("model.num_layers"), said.get("parallel.pp")
    for statement in statements:
        hit = re.search(LAYERS_OF_STAGE, statement.words)
        if hit and layers and pp and int(hit[1] or hit[2]) * pp.value != layers.value:
            each = int(hit[1] or hit[2])
            on_all = f"{each} layers on each of {pp.value} stages are {each * pp.value}"
            yield f"line {statement.line}: {on_all}, not {layers.value}"


def _sums(claims: list[dict[str, Any]]) -> Iterator[str]:
    """The sum of the parts since the last total, against the total that follows them."""
    parts: dict[str, float] = {}
    for claim in claims:
        if claim["quantity"] in _PARTS and claim["claimed"]:
            parts.setdefault(claim["quantity"], claim["claimed"])
        elif claim["quantity"] == "memory_bytes" and len(parts) > 1:
            total, added = claim["claimed"], sum(parts.values())
            listed_all = len(parts) > 3 and claim["relation"] != "at_most"
            if added > 1.05 * total or (listed_all and added < 0.95 * total):
                listed = " + ".join(f"{size / 1e9:g}" for size in parts.values())
                yield (
                    f"line {claim['line']}: the parts of the memory are {listed} = {added / 1e9:g} GB, "
                    f"but the total is {total / 1e9:g} GB"
                )
            parts = {}


def _latency_and_throughput(claims: list[dict[str, Any]], statements: list[Statement]) -> Iterator[str]:
    """At the same batch size both are one number: a batch in a quarter of the time is four times the throughput."""
    if not any(re.search(r"same (?:global )?batch", statement.words) for statement in statements):
        return
    at = {claim["quantity"]: claim for claim in reversed(claims)}
    latency, gain = at.get("latency_reduction"), at.get("throughput_gain")
    if latency and gain and 0 < latency["claimed"] < 1:
        implied = 1 / (1 - latency["claimed"])
        if abs(implied - gain["claimed"]) > 0.1 * implied:
            yield (
                f"{_lines(latency['line'], gain['line'])}: at the same batch size a latency reduced by "
                f"{latency['claimed']:.0%} is a throughput of {implied:g}x, not {gain['claimed']:g}x"
            )


def _arithmetic(statements: list[Statement]) -> Iterator[str]:
    """Products and quotients of two numbers or more that are written out, with what they are said to be."""
    number = r"\d{1,9}(?:\.\d{1,6})?"
    expression = re.compile(
        rf"(?<![\w.)/*x-])({number}(?:\s*[x*/]\s*{number})+)\s*=\s*({number})(\s*%)?(?![\d.]*\s*\*\*)"
    )
    for statement in statements:
        without_nouns = re.sub(r"(?<=\d) (?:layers|modules|gpus|stages|experts)\b", "", plain(statement.words))
        for hit in expression.finditer(without_nouns):
            numbers, signs = re.findall(number, hit[1]), re.findall(r"[x*/]", hit[1])
            value = float(numbers[0])
            for sign, right in zip(signs, map(float, numbers[1:]), strict=True):
                value = value * right if sign != "/" else (value / right if right else float("nan"))
            claimed = float(hit[2]) / (100 if hit[3] else 1)
            if not abs(value - claimed) <= 0.05 * abs(claimed):
                yield f"line {statement.line}: {hit[0].strip()}, but it is {value * (100 if hit[3] else 1):g}"


def _map_against_degrees(places: list[Place], said: dict[str, Fact]) -> Iterator[str]:
    for axis, key in (("tp", "parallel.tp"), ("pp", "parallel.pp"), ("dp", "parallel.dp")):
        stages = said["parallel.virtual_stages"].value if axis == "pp" and "parallel.virtual_stages" in said else 1
        for place in places:
            at = getattr(place, axis)
            if at is not None and key in said and at >= said[key].value * stages:
                degree = said[key].value
                yield f"line {place.line}: {axis} {at} is not one of {axis} {degree}'s ranks, which count from 0"
    if "gpus" in said:
        for place in places:
            if place.gpu >= said["gpus"].value:
                yield f"line {place.line}: GPU {place.gpu} is not one of {said['gpus'].value}, which count from 0"
    for place in places:
        if place.layers and "model.num_layers" in said and place.layers[1] >= said["model.num_layers"].value:
            last, layers = place.layers[1], said["model.num_layers"].value
            yield f"line {place.line}: layer {last} is not one of {layers}, which count from 0"
