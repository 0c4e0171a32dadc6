"""Patterns find what a document says of its model, hardware and layout; there is one for each way of saying it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from project.documents.statements import Statement

_N = r"(\d+)"
_IS = r"\s*(?:(?:=|:|is|of|degree|size|\()\s*){0,4}"

_OWN = r"\b(?<!ffn )(?<!ff )(?<!expert )(?<!experts of )(?<!forward )"  # the model's, not an expert's


@dataclass(frozen=True)
class Fact:
    """`key` is a configuration key, or gpus, gpu, nodes, gpu_memory, microbatch_size, dense, cp."""

    key: str
    value: Any
    line: int
    text: str


def _degree(short: str, long: str) -> tuple[str, ...]:
    name = rf"{long}[- ]?parallel(?:ism)?(?:\s*\({short}\))?"
    return (
        rf"(?<![a-wyz])(?<!expert ){short}\s*(?:size|degree)?\s*[=:]?\s*{_N}(?![\d.]*\s*(?:%|gb))",
        rf"(?<!expert )(?<!expert-){name}{_IS}{_N}\b(?!\s*(?:gpus|%|x))",
        rf"\b{_N}[- ]?way\s+(?:{short}\b|{long})",
        rf"\b{_N}\s*x\s*{short}\b",
    )


PATTERNS: dict[str, tuple[str, ...]] = {
    "parallel.etp": _degree("etp", "expert[- ]tensor"),
    "parallel.tp": _degree("tp", "tensor"),
    "parallel.pp": (*_degree("pp", "pipeline"), rf"\binto {_N} (?:pipeline )?stages\b"),
    "parallel.dp": _degree("dp", "data"),
    "parallel.ep": _degree("ep", "expert"),
    "cp": _degree("cp", "context"),
    "parallel.virtual_stages": (
        rf"\b{_N}\s*virtual",
        rf"\bvirtual[ _-]?(?:pipeline )?(?:stages|chunks)?(?: per rank)?{_IS}{_N}",
        rf"\bvpp?{_IS}{_N}\b(?!\d)",
    ),
    "parallel.microbatches": (
        rf"\b{_N}\s*micro-?batches\b",
        rf"\b(?:number of )?micro-?batches{_IS}{_N}\b(?!\s*x)",
        rf"(?<![\w/])m\s*=\s*{_N}\b",
    ),
    "microbatch_size": (rf"\bmbs{_IS}{_N}", rf"\bmicro-?[ _]?batch(?:[ _]size)?{_IS}{_N}\b"),
    "data.batch_size": (
        rf"\bgbs{_IS}{_N}",
        rf"\bglobal[ _]batch(?:[ _]size)?{_IS}{_N}",
        rf"(?<!micro)(?<!micro-)(?<!micro )\bbatch(?:[ _]size)?{_IS}{_N}\b(?!\s*tokens)",
        rf"\b{_N} sequences\b",
    ),
    "data.seq_len": (
        rf"\bseq(?:uence)?[ _-]?(?:len(?:gth)?)?s?{_IS}{_N}\b",
        rf"\bsequences? of {_N}\b",
        rf"\bcontext(?: length)?{_IS}{_N}\b",
        rf"\bof {_N} tokens\b",
    ),
    "model.num_layers": (
        rf"\b{_N} (?:transformer |decoder |identical )*layers\b(?! (?:per|each|of each))",
        rf"\blayers{_IS}{_N}\b(?!\s*-)",
        rf"\b{_N}l\b",
        rf"\bnum_layers{_IS}{_N}",
    ),
    "model.num_experts": (
        rf"\b(?:of the |of )?{_N} (?:routed )?experts\b(?! per (?:gpu|rank))",
        rf"\bexperts(?: per layer)?{_IS}{_N}\b",
        rf"\b{_N}e\b",
        rf"\bnum_experts{_IS}{_N}",
        rf"\b{_N}-expert\b",
    ),
    "model.top_k": (rf"\btop[- _]?k?{_IS}{_N}\b",),
    "model.num_kv_heads": (
        rf"\b{_N} (?:kv|key[-/ ]value)[- ]?heads",
        rf"\bkv(?:[ _-]?heads)?{_IS}{_N}\b",
        rf"\b{_N}kv\b",
        rf"\bnum_kv_heads{_IS}{_N}",
    ),
    "model.num_heads": (
        rf"(?<!kv )(?<!kv)\b{_N} (?:attention |query )?heads\b",
        rf"(?<!kv )(?<!kv)(?<!kv-)(?<!kv_)\b(?:attention )?heads{_IS}{_N}\b",
        rf"\b{_N}h\b",
        rf"\bnum_heads{_IS}{_N}",
    ),
    "model.head_dim": (
        rf"\bd_?k{_IS}{_N}",
        rf"\bheads?[ _]dim(?:ension)?{_IS}{_N}",
        rf"\bheads of (?:dimension |size )?{_N}",
    ),
    "model.d_model": (
        rf"\btoken_dim{_IS}{_N}",
        rf"\bd_?model{_IS}{_N}",
        rf"\bmodel (?:dim(?:ension)?|width){_IS}{_N}",
        rf"{_OWN}hidden[ _]size{_IS}{_N}",
        rf"\bembedding (?:dim(?:ension)?|size){_IS}{_N}",
        rf"(?<![a-z_])d{_IS}(\d{{3,}})\b",
    ),
    "model.d_ff": (
        rf"\bd_?ff{_IS}{_N}",
        rf"\bffn?(?: hidden)?(?: size| dim(?:ension)?)?{_IS}{_N}",
        rf"\bfeed-?forward(?: dim(?:ension)?| size| width)?{_IS}{_N}",
        rf"\bintermediate(?:[ _]size)?{_IS}{_N}",
        rf"\bexpert hidden(?: size| dim(?:ension)?)?{_IS}{_N}",
        rf"\bexperts? of hidden(?: size)? {_N}",
    ),
    "hidden": (rf"{_OWN}hidden(?: dim(?:ension)?)?{_IS}{_N}",),
    "model.vocab_size": (rf"\bvocab(?:ulary)?(?:[ _]size)?{_IS}{_N}", rf"(?<![a-z])v{_IS}(\d{{4,}})\b"),
    "gpus": (
        rf"\b{_N}\s*x?\s*(?:nvidia )?(?:h100|a100|h200|b200)s?\b",
        rf"\bon {_N} (?:gpus|accelerators)\b",
        rf"\bgpus(?: used| available)?{_IS}{_N}\b(?!\s*-)",
        rf"\b{_N} gpus\b(?! (?:each|a node|per node))",
    ),
    "nodes": (rf"\b{_N} (?:nodes|hosts|servers)\b",),
    "gpus_per_node": (rf"\bnodes of {_N}\b", rf"\b{_N} gpus (?:per|a|each) node\b"),
}
_NOT_WHOLE_MODEL = re.compile(
    r"\b(?:each|every|owns?|holds?|per stage|per gpu|sequential|keeps?|takes?|stage \d)\b|layers \d+\s*-"
)
_LONGEST = 12  # digits of a number that counts anything
_OF_PART = ("model.num_layers", "gpus")
_SCHEDULES = (
    (r"interleaved zero.?bubble|zb-?v", "ZBVZeroBubble"),
    (r"dual.?pipe", "DualPipeV"),
    (r"interleav", "Interleaved1F1B"),
    (r"gpipe", "GPipe"),
    (r"looped.?bfs", "LoopedBFS"),
    (r"\b1f1b\b|one-forward-one-backward", "1F1B"),
)
_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "eight": 8, "ten": 10, "sixteen": 16}


def facts_of(statement: Statement) -> list[Fact]:
    """All facts of a statement, at most one value a key."""
    words = re.sub(r"\b(" + "|".join(_WORDS) + r")\b", lambda one: str(_WORDS[one[0]]), statement.words)
    found: dict[str, Any] = {}
    for key, patterns in PATTERNS.items():
        if (value := _value(key, patterns, words)) is not None:
            found[key] = value
    if re.search(r"\bacross \d+ gpus", words) and any(key.startswith("parallel.") for key in found):
        found.pop("gpus", None)  # those of one axis
    found |= dict(_named(words))
    return [Fact(key, value, statement.line, statement.text) for key, value in found.items()]


def _value(key: str, patterns: tuple[str, ...], words: str) -> int | None:
    """The first number that one of the patterns finds; counts of a part of the model are passed over."""
    for pattern in patterns:
        for hit in re.finditer(pattern, words):
            of_part = key in _OF_PART and _NOT_WHOLE_MODEL.search(_clause(words, hit))
            of_virtual = key == "parallel.pp" and "into" in hit[0] and "virtual" in words
            if not of_part and not of_virtual and len(hit[1]) < _LONGEST:
                return int(hit[1])
    return None


def _clause(words: str, hit: re.Match[str]) -> str:
    """The part of a sentence that the hit is in."""
    begun = max(words.rfind(sign, 0, hit.start()) for sign in ",;.(") + 1
    ends = [end for sign in ",;.)" if (end := words.find(sign, hit.end())) >= 0]
    return words[begun : min(ends, default=len(words))]


def _named(words: str) -> Iterator[tuple[str, Any]]:
    """Facts whose value is a word."""
    for pattern, schedule in _SCHEDULES:
        if re.search(pattern, words):
            yield "parallel.schedule", schedule
            break
    if re.search(r"\bfsdp2?\b|fully[- ]sharded|zero[- ]?(?:stage )?3", words):
        yield "parallel.dp_mode", "shard"
    if zero := re.search(r"zero[- ]?(?:stage )?([12])\b", words):
        yield "zero", int(zero[1])
    if re.search(r"selective\w* (?:activation )?recomp", words):
        yield "parallel.recompute", "selective"
    elif re.search(r"\b(?:no|without) (?:activation |gradient )?(?:recomput|checkpointing)", words):
        yield "parallel.recompute", "none"
    elif re.search(r"full\w* (?:activation )?recomp", words):
        yield "parallel.recompute", "full"
    elif re.search(r"(?:gradient|activation) checkpointing|\brecomput", words):
        yield "checkpointing", True
    half = set(re.findall(r"\b(bf16|bfloat16|fp16|float16|fp32|fp8)\b", words))
    if half & {"bf16", "bfloat16"} and not half & {"fp16", "float16"}:
        yield "trainer.precision", "bf16-mixed"
    elif half and half <= {"fp16", "float16"}:
        yield "trainer.precision", "16-mixed"
    if kind := re.search(r"\b(h100|a100|h200|b200)\b", words):
        yield "gpu", kind[1]
    if re.search(r"\bdense\b(?: \w+)? (?:model|transformer|decoder)|\bllama\b|no experts", words):
        yield "dense", True
    if re.search(r"\bmoe\b|mixture[- ]of[- ]experts|\bmixtral\b", words):
        yield "moe", True
