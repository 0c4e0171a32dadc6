"""`plan.py` prints and writes of a strategy document its verdicts, its contradictions, and the document given back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from project.documents.entry import document_entry
from project.documents.giving_back import annotated, corrected
from project.documents.reading import Reading, read_document
from project.planner.config import Config, cluster_of, step_of
from project.planner.document.performance_sheets import quantity_text
from project.planner.document.sheet import Sheet
from project.planner.search.outcome import search_all
from project.run_folder import write_atomically
from project.spec.fault import Fault

_PLANNED = "no plan was made: the layout is not legal"


def read(config: Config) -> Reading:
    return read_document(Path(str(config["document"])).expanduser())


def unplanned(config: Config, faults: list[Fault]) -> dict[str, Any]:
    """The content of `plan.json` where the document's layout is not legal: claims of which none can be known."""
    found = read(config)
    reason = f"{_PLANNED}: {'; '.join(map(str, faults))}"
    unknown = {"found": None, "unit": "1", "verdict": "unknown", "by": None, "difference": None, "source": "derived"}
    claims = [{**claim, **unknown, "derivation": reason} for claim in found.claims]
    return {"claims": claims, "document": document_entry(found, config, []), "faults": list(map(str, faults))}


def sheets(entry: dict[str, Any]) -> Iterator[Sheet]:
    """Sheets of what a document says besides its claims."""
    if entry["contradictions"]:
        yield Sheet("Contradictions in the document", ("",), [(one,) for one in entry["contradictions"]])
    said = [
        (str(one["line"]), one["about"], str(one["said"]), str(one["found"]), one["verdict"])
        for one in (*entry["settings"], *entry["notes"])
    ]
    if said:
        yield Sheet("Said of the configuration", ("line>", "of", "said", "found", "verdict"), said)
    if entry["rank_map"]:
        rows = [(str(one["line"]), one["text"], one["found"], one["verdict"]) for one in entry["rank_map"]]
        yield Sheet("Rank map", ("line>", "said", "found", "verdict"), rows)
    assumed = [(f"{one['key']}={one['value']}", one["why"]) for one in entry["assumed"]]
    assumed += [(f"{key}=", "not in the document: the default is taken; give it") for key in entry["open"]]
    assumed += [("not planned", one) for one in entry["unsupported"]]
    if assumed:
        yield Sheet("Assumed", ("", "why"), assumed)
    left = [(str(one["line"]), one["text"], "inference: cannot be known") for one in entry["declined"]]
    left += [(str(one["line"]), one["text"], "not understood") for one in entry["not_understood"]]
    if left:
        yield Sheet("Not checked", ("line>", "said", ""), left)


def give_back(config: Config, content: dict[str, Any], folder: Path) -> None:
    """Writes `annotated.md` and `corrected.md`."""
    text, claims, entry = read(config).text, content["claims"], content["document"]
    write_atomically(folder / "annotated.md", annotated(text, claims, entry, quantity_text))
    write_atomically(folder / "corrected.md", corrected(text, claims, _better(config, content), entry))


def falls_short(content: dict[str, Any]) -> list[str]:
    """The claims, values and contradictions that `strict=true` fails for."""
    claims = [claim["claim"] for claim in content["claims"] if claim["verdict"] == "fails"]
    entries = content["document"]
    others = [one for kind in ("settings", "notes", "rank_map") for one in entries[kind] if one["verdict"] == "fails"]
    return [*claims, *(one["text"] for one in others), *entries["contradictions"], *content.get("faults", [])]


def _better(config: Config, content: dict[str, Any]) -> str:
    """The overrides of the fastest layout that fits, where it is faster by more than a hundredth; empty where the
    document's is the fastest, or where no plan was made."""
    if "quantities" not in content:
        return ""
    outcome = search_all(step_of(config), cluster_of(config), "time", "python project/train.py")
    if not outcome.best or outcome.best[0].seconds > 0.99 * content["quantities"]["step_time_s"]["value"]:
        return ""
    from project.planner.search.space import overrides

    return f"{overrides(outcome.best[0].layout)}"
