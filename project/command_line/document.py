"""`document=strategy.md` on the command line: the document's configuration, before what is typed, which wins."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from project.command_line.refusal import refuse
from project.command_line.typed import typed
from project.documents.reading import read_document
from project.documents.settings import overrides, settings_of
from project.documents.statements import is_document
from project.spec.fault import Fault
from project.spec.untrusted import Unreadable


def with_document(argv: Sequence[str], command: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Puts the document's overrides before the others. Ends the program with status 2 where it cannot be read."""
    name = typed(argv, "document")
    if not isinstance(name, str) or not is_document(name):
        return list(argv)
    try:
        read = read_document(Path(name).expanduser())
    except Unreadable as error:
        refuse([Fault("document", name, error.problem)], environ)
    if not any(key.startswith(("parallel.", "model.")) for key in read.said) and not read.claims:
        message = "says nothing of a model or a layout that was understood: it has no degree, as in TP=4, and no layers"
        refuse([Fault("document", name, message)], environ)
    return [*overrides(settings_of(read), list(argv), with_cluster=command == "plan"), *argv]
