"""Text from data on one line, and inside Markdown."""

import re

# control characters, those that reverse what follows, halves of surrogate pairs and what is no character
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def one_line(text: str, most: int) -> str:
    """A text without line breaks and control characters, cut to so many characters."""
    shown = _UNSHOWABLE.sub("\ufffd", " ".join(text.split()))
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def code_span(text: str, most: int = 100) -> str:
    """A text as Markdown's inline code, in which nothing is markup, HTML or a link; on one line."""
    shown = one_line(text, most)
    if not shown:
        return "(empty)"
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{space}{shown}{space}{fence}"
