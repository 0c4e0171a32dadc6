"""Patterns find what a document claims of memory, time and balance; each claim names a quantity of the plan, as entries
of `configs/claims` do."""

import re
from collections.abc import Iterator
from typing import Any

from project.documents.statements import Statement, plain

UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = r"(\d+(?:\.\d+)?)\s*([kmgt]i?b)\b"
_NUMBER = r"(\d+(?:\.\d+)?)"
_MOST = r"(?:<|≤|under|below|less than|at most|up to|within|no more than)"
_LEAST = r"(?:>|≥|over|above|more than|at least)"
LAYERS_OF_STAGE = r"\b(\d{1,6}) layers (?:per|a|in each|on each) stage|stage (?:owns|holds|has|keeps) (\d{1,6}) layers"
MEMORY = (
    ("framework_bytes", r"framework|cuda context"),
    ("memory_bytes", r"\btotal\b(?! param)|\bin all\b|\bsum\b|\baltogether\b|memory within limits|\bpeak\b"),
    ("optimizer_bytes", r"optimi[sz]er"),
    ("gradient_bytes", r"\bgrad(?:ient)?s?\b(?! checkpoint)"),
    ("activation_bytes", r"\bactivations?\b"),
    ("logits_bytes", r"\blogits\b"),
    ("buffer_bytes", r"\bbuffers?\b"),
    ("weight_bytes", r"\bweights?\b|\bparam(?:eter)?s?\b"),
)
_INFERENCE = re.compile(
    r"\bttft\b|time[- ]to[- ]first[- ]token|\btpot\b|inter-token|per output token|\bp(?:50|90|95|99)\b|kv[- ]cache"
    r"|requests?(?:/s| per second)|\bqps\b|\bdecod(?:e|ing)\b|\bprefill\b|\bserving\b"
)


def is_inference(statement: Statement) -> bool:
    """True for a figure of serving a model, which a plan of training does not have."""
    return bool(_INFERENCE.search(statement.words))


def claims_of(statement: Statement) -> list[dict[str, Any]]:
    if is_inference(statement):
        return []
    found, seen = [], set()
    clauses = re.split(r"(?<=[a-z\d%)])[.;]\s+", statement.words)
    for clause in clauses:
        for claim in (*_memory(clause), *_rates(clause, plain(statement.heading)), *_counts(clause), *_unnamed(clause)):
            key = (claim["quantity"], claim["relation"], claim["claimed"])
            if key not in seen:
                seen.add(key)
                found.append({"claim": statement.said.replace("**", ""), "line": statement.line, **claim})
    return found


def _claim(quantity: str, relation: str, claimed: float | None, within: float | None = None) -> dict[str, Any]:
    return {"quantity": quantity, "relation": relation, "claimed": claimed} | ({"within": within} if within else {})


def _memory(words: str) -> Iterator[dict[str, Any]]:
    sizes = list(re.finditer(_SIZE, words))
    if not sizes or re.search(r"bandwidth|\ball-?reduce|gb/s|\bsent\b|\btraffic\b|collective", words):
        return
    named = [(quantity, hit.start()) for quantity, what in MEMORY if (hit := re.search(what, words))]
    quantity = min(named, key=lambda one: (one[0] == "weight_bytes", one[1]))[0] if named else None
    if re.search(r"\d\s*b\s*/\s*param|model states?\b", words):
        quantity, named = "state_bytes", []
    if len(named) > 1 and sizes[0].start() > max(at for _, at in named):
        quantity = named[0][0]
    for hit in sizes:
        if quantity is None:
            return
        value = float(hit[1]) * UNITS[hit[2]]
        before = words[max(0, hit.start() - 24) : hit.start()]
        after = words[hit.end() : hit.end() + 24]
        bound = re.search(_MOST + r"\s*(?:the |its |~)?\s*$", before)
        if re.match(r"\s*(?:limit|cards?|available|capacity|of (?:hbm|memory))", after):
            yield _claim("memory_bytes", "at_most", value)
        elif bound:
            yield _claim(quantity, "at_most", value)
        elif re.search(_LEAST + r"\s*$", before):
            yield _claim(quantity, "at_least", value)
        else:
            yield _claim(quantity, "about", value)


def _rates(words: str, heading: str) -> Iterator[dict[str, Any]]:
    words_and_heading = f"{heading.rpartition('/')[2]} {words}" if "improvement" in words else words
    if hit := re.search(
        rf"latency[^.;]{{0,80}}?{_NUMBER}\s*%|{_NUMBER}\s*% (?:less|lower|reduced|shorter) latency", words
    ):
        yield _claim("latency_reduction", "at_least", float(hit[1] or hit[2]) / 100)
    if hit := re.search(
        rf"(?:throughput|speed-?up)[^.;]{{0,80}}?{_NUMBER}\s*(?:x|times|fold)"
        rf"|{_NUMBER}\s*(?:x|times)\s*(?:the |more |higher )*(?:throughput|faster|speed-?up)",
        words_and_heading,
    ):
        yield _claim("throughput_gain", "at_least", float(hit[1] or hit[2]))
    if hit := re.search(
        rf"\bgpu(?:s)?\b[^.;,]{{0,80}}?utili[sz]\w+\W*{_NUMBER}\s*%|\bgpus[^.;,]{{0,80}}?{_NUMBER}\s*% (?:utili|busy)",
        words,
    ):
        yield _claim("pipeline_utilization", "at_least", float(hit[1] or hit[2]) / 100)
    if hit := re.search(rf"expert utili[sz]ation\W*{_NUMBER}\s*%", words):
        yield _claim("expert_utilization", "at_least", float(hit[1]) / 100)
    if hit := re.search(rf"\bbubble\b[^.;]{{0,80}}?{_NUMBER}\s*%", words):
        most = re.search(_MOST + r"\s*~?\s*$", words[: hit.start(1)])
        yield _claim("bubble", "at_most" if most else "about", float(hit[1]) / 100)
    if hit := re.search(rf"{_NUMBER}\s*% mfu|\bmfu\b[^.;]{{0,80}}?{_NUMBER}\s*%", words):
        yield _claim("mfu", "at_least", float(hit[1] or hit[2]) / 100)
    if hit := re.search(rf"{_NUMBER}\s*tflop/?s?(?:/s)?\s*(?:/|per|a|each)\s*gpu", words):
        yield _claim("flops_per_gpu", "at_least", float(hit[1]) * 1e12)
    if hit := re.search(rf"{_NUMBER}\s*(ms|s|seconds?)\s*(?:/|per|a)\s*step|step time\W*{_NUMBER}\s*(ms|s)\b", words):
        yield _claim("step_time_s", "about", float(hit[1] or hit[3]) * (1e-3 if "ms" in (hit[2], hit[4]) else 1))
    if hit := re.search(
        rf"{_NUMBER}\s*(k|m)?\s*(?:tokens?|tok)\s*(?:/|per )\s*s(?:ec(?:ond)?)?\b(\s*(?:/|per )\s*gpu)?", words
    ):
        rate = float(hit[1]) * {"k": 1e3, "m": 1e6}.get(hit[2] or "", 1)
        yield _claim("tokens_per_second_per_gpu" if hit[3] else "tokens_per_second", "at_least", rate)


def _counts(words: str) -> Iterator[dict[str, Any]]:
    if hit := re.search(rf"{_NUMBER} modules per gpu", words):
        yield _claim("modules_per_gpu", "equal", float(hit[1]))
    if hit := re.search(r"sequential layers\W*\d+\s*-?>\s*(\d+)", words):
        yield _claim("sequential_layers", "equal", int(hit[1]))
    if hit := re.search(r"expert computation\W*(\d+)\s*x", words):
        yield _claim("expert_parallelization", "equal", int(hit[1]))
    if hit := re.search(r"attention computation\W*(\d+)\s*x", words):
        yield _claim("attention_parallelization", "equal", int(hit[1]))
    if hit := re.search(LAYERS_OF_STAGE, words):
        yield _claim("layers_per_rank", "equal", int(hit[1] or hit[2]))
    if hit := re.search(r"(?:gpus used|gpus? count)\W*(?:matches\W*)?(\d+)", words):
        yield _claim("gpus_used", "equal", int(hit[1]))
    if hit := re.search(r"\b(\d+)(?: gpus)? available|available gpus\W*(\d+)", words):
        yield _claim("gpus_available", "at_least", int(hit[1] or hit[2]))
    billions = rf"(?<![\w.]){_NUMBER}\s*(b|m|billion|million)\b"
    if hit := re.search(rf"total param\w*[^.;,]{{0,80}}?{billions}|{billions} (?:total )?param", words):
        value, unit = (hit[1], hit[2]) if hit[1] else (hit[3], hit[4])
        yield _claim("parameters_total", "about", float(value) * (1e9 if unit[0] == "b" else 1e6), 0.05)
    if hit := re.search(rf"{billions}[^.;,]{{0,12}}\bactive|active param\w*[^.;,]{{0,80}}?{billions}", words):
        value, unit = (hit[1], hit[2]) if hit[1] else (hit[3], hit[4])
        yield _claim("parameters_active", "about", float(value) * (1e9 if unit[0] == "b" else 1e6), 0.05)


def _unnamed(words: str) -> Iterator[dict[str, Any]]:
    if re.search(r"minimal cross-gpu transfers|minimal communication", words):
        yield _claim("communication_bytes", "unknown", None)
