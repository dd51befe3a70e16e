"""Values inside an HTML page, in forms that nothing can break out of."""

import json
import re
from typing import Any

# < > & could end or open markup; the two separators end a line in older JavaScript
_UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
# neither HTML nor UTF-8 can hold NUL or half a surrogate pair
_UNSHOWABLE = re.compile("[\0\ud800-\udfff]")


def embedded_json(value: Any) -> str:
    """JSON for a ``<script type="application/json">``: no sign in it means anything to HTML.

    Args:
        value: What JSON can hold: without NaN and infinities.

    Returns:
        Text that has a UTF-8 form; half a surrogate pair, NUL and the like are JSON escapes.

    Raises:
        TypeError: If the value holds an object that JSON has no form for.
        ValueError: If it holds NaN or an infinity.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE).encode("utf-8", "backslashreplace").decode()


def showable(text: str) -> str:
    """The text with U+FFFD where it holds NUL or half a surrogate pair."""
    return _UNSHOWABLE.sub("\ufffd", text)
