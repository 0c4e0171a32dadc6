"""The choice of the documents that are held out for validation."""

from __future__ import annotations

import hashlib


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) that depends on `parts` alone. Python's `hash` would differ from process to process."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def is_validation(index: int, document_id: str, val_fraction: float) -> bool:
    """True for a document that is held out for validation.

    Whole documents are held out, so that a model is not tested on the other half of a file that it was trained on. The
    choice is by name, so that adding files moves none of the others. The corpus's first document (`index` 0) is never
    held out, so that there is always something to train on.
    """
    return index > 0 and unit_hash("validation", document_id) < val_fraction
