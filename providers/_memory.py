"""What clients forget: opaque reasoning state, kept for the turn that brings its tool calls back without it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Iterable, List

from . import JSON


class Remembered:
    """The reasoning details of the last `size` tool calls that had any, by the id of the call."""

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, List[JSON]] = OrderedDict()

    def keep(self, ids: Iterable[str], details: List[JSON]) -> None:
        """Remember the details of one answer for each of its tool calls."""
        if not details:
            return
        with self._lock:
            for id_ in ids:
                self._kept[id_] = details
                self._kept.move_to_end(id_)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def recall(self, ids: Iterable[str]) -> List[JSON]:
        """Give the details kept for the first of these tool calls that is remembered; empty if none is."""
        with self._lock:
            for id_ in ids:
                if id_ in self._kept:
                    self._kept.move_to_end(id_)
                    return list(self._kept[id_])
        return []
