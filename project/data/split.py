"""Which documents are held out for validation."""

from __future__ import annotations

import hashlib


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) that depends on `parts` alone; Python's own `hash` differs from process to process."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def is_validation(index: int, document_id: str, val_fraction: float) -> bool:
    """Whole documents are held out, so that a model cannot see one half of a file and be tested on the other. The
    choice is by name, so files that are added later move none that were there; only the corpus's first document
    (`index` 0) always trains, so that there is always something to train on.
    """
    return index > 0 and unit_hash("validation", document_id) < val_fraction
