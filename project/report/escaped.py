"""Text that a run or its folder's maker chose, for a page."""

import html

from project.spec.fault import plain


def escape(text: str) -> str:
    """The text as HTML, with control characters shown as escapes."""
    return html.escape(plain(text))
