"""Reasoning state of any provider, sealed into the one opaque text that a dialect's clients bring back as it came.

The text is base64 in both of its alphabets: clients that decode it and encode it their own way do not change it. It
is not secret and not signed; whoever makes one up says no more than could be said in `reasoning_details`.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any, List, Optional

from . import JSON, Refusal
from ._json import parsed

_MARK = b"llmproxy-1:"  # three bytes of it make four letters, so what it looks like in base64 is its own
PREFIX = base64.b64encode(_MARK[:9]).decode()
LARGEST = 4 * 1024 * 1024  # bytes of state in one text


def sealed(details: List[JSON]) -> str:
    """Give reasoning details as one text, for `opened`."""
    inner = base64.urlsafe_b64encode(zlib.compress(json.dumps({"details": details}, separators=(",", ":")).encode()))
    return base64.b64encode(_MARK + inner).decode()  # of letters that are all below `>`, `?` and `~`: no + and no /


def opened(text: Any) -> Optional[List[JSON]]:
    """Give the details that were sealed; None for any text that is not ours."""
    if not isinstance(text, str) or not text.startswith(PREFIX):
        return None
    try:
        marked = base64.b64decode(text, validate=True)
        inner = base64.b64decode(marked[len(_MARK) :], b"-_", validate=True)
        unpacking = zlib.decompressobj()
        details = parsed(unpacking.decompress(inner, LARGEST)).get("details")
    except (binascii.Error, ValueError, zlib.error, Refusal):
        return None
    if not marked.startswith(_MARK) or not unpacking.eof or not isinstance(details, list):
        return None
    return details if all(isinstance(one, dict) for one in details) else None
