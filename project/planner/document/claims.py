"""Checks the claims of a strategy document against the quantities of its plan."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from project.planner.document.quantities import Quantity
from project.spec.fault import Fault, is_number, legal, said
from project.spec.untrusted import Unreadable, read_yaml

RELATIONS = ("equal", "about", "at_least", "at_most", "unknown")
WITHIN = 0.25  # relative tolerance of a claim with a tilde
_KEYS = ("claim", "quantity", "relation", "claimed", "within")


def read_claims(path: Path) -> list[dict[str, Any]]:
    """Reads the list of claims in a YAML file. Raises OSError or ValueError for a file that has none."""
    try:
        entries = read_yaml(path)
    except Unreadable as error:
        if not path.exists():
            raise FileNotFoundError(str(path)) from None
        raise ValueError(error.problem) from None
    claims = entries.get("claims") if isinstance(entries, dict) else None
    if not isinstance(claims, list) or not all(isinstance(claim, dict) for claim in claims):
        raise ValueError("has no list of claims under the key `claims`")
    if not claims:
        raise ValueError("claims nothing: the list under the key `claims` is empty")
    return claims


def claim_faults(key: str, path: Path, quantities: Iterable[str]) -> list[Fault]:
    """Lists everything that is wrong with a file of claims, claim by claim."""
    names = list(quantities)
    try:
        claims = read_claims(path)
    except FileNotFoundError:
        return [Fault(key, str(path), "does not exist; give the path of a YAML file, or a name in configs/claims")]
    except (OSError, ValueError) as error:
        return [Fault(key, str(path), error.strerror or "cannot be read" if isinstance(error, OSError) else str(error))]
    found = []
    for place, claim in enumerate(claims, 1):
        if reasons := list(_reasons(claim, names)):
            found.append(
                Fault(key, str(path), f"claim {place} ({claim.get('claim', 'unnamed')}): {'; '.join(reasons)}")
            )
    return found


def _reasons(claim: Mapping[str, Any], names: list[str]) -> Iterable[str]:
    yield from (f"{name} is no key of a claim; {legal(name, _KEYS)}" for name in claim if name not in _KEYS)
    words, quantity, relation = claim.get("claim"), claim.get("quantity"), claim.get("relation")
    if not isinstance(words, str) or not words.strip():
        yield f"claim={said(words)} must be the document's words"
    if quantity not in names:
        near = get_close_matches(str(quantity), names, n=3, cutoff=0.3)
        yield f"quantity={said(quantity)} is not known; nearest {', '.join(near or names[:3])}"
    if relation not in RELATIONS:
        yield f"relation={said(relation)} is not known; {legal(relation, RELATIONS)}"
    yield from _claimed_reasons(claim, relation)


def _claimed_reasons(claim: Mapping[str, Any], relation: Any) -> Iterable[str]:
    if "claimed" not in claim:
        yield "claimed must be given; it is null where the document names no number"
    elif relation != "unknown" and not is_number(claim["claimed"]):
        yield f"claimed={said(claim['claimed'])} must be a number"
    within = claim.get("within", WITHIN)
    if not is_number(within) or within < 0:
        yield f"within={said(within)} must be a number of at least 0, the fraction that `about` allows"


def check(claims: Iterable[Mapping[str, Any]], quantities: Mapping[str, Quantity]) -> list[dict[str, Any]]:
    """Checks claims; returns them as entries of `plan.json`. For a claim that fails, `difference` is the found value
    minus the claimed one and `by` their ratio, which is None where the claimed value is not positive."""
    return [_checked(claim, quantities[claim["quantity"]]) for claim in claims]


def _checked(claim: Mapping[str, Any], found: Quantity) -> dict[str, Any]:
    claimed, relation, value = claim["claimed"], claim["relation"], found.value
    if relation == "unknown" or value is None:
        verdict = "unknown"
    else:
        verdict = "holds" if _holds(relation, value, claimed, claim.get("within", WITHIN)) else "fails"
    apart = value - claimed if value is not None and verdict == "fails" else None
    factor = value / claimed if value is not None and verdict == "fails" and claimed > 0 else None
    return {
        "claim": claim["claim"],
        "quantity": claim["quantity"],
        "claimed": claimed,
        "found": value,
        "unit": found.unit,
        "verdict": verdict,
        "by": factor,
        "difference": apart,
        "source": found.source,
        "derivation": found.how,
    } | {key: claim[key] for key in ("line", "lines") if key in claim}


def _holds(relation: str, found: float, claimed: float, within: float) -> bool:
    close = 1e-9 * max(abs(claimed), abs(found))
    match relation:
        case "equal":
            return abs(found - claimed) <= close
        case "about":
            return abs(found - claimed) <= within * abs(claimed)
        case "at_least":
            return found >= claimed - close
        case _:
            return found <= claimed + close
