"""What is logged, on its way to stderr: a line per event, as text or as JSON, by way of the library's own `logging`."""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from typing import Any, Mapping, Sequence, Tuple

STDERR = 2


def set_up(options: Mapping[str, Any]) -> None:
    """Log what is ours to stderr as the kernel's options say; nothing is made of what nobody reads."""
    logging.setLogRecordFactory(Record)
    setattr(logging, "_srcfile", None)  # noqa: B010  (the way of its documentation to not look for who called)
    handler = Stderr()
    handler.setFormatter(Lines(as_json=options["log"] == "json"))
    ours = logging.getLogger("llmproxy")
    ours.handlers[:], ours.propagate = [handler], False
    ours.setLevel(logging.DEBUG if options["debug"] else logging.INFO)
    if nobody_reads(STDERR):
        logging.disable(logging.CRITICAL)


def nobody_reads(descriptor: int) -> bool:
    """Tell whether what is written there is lost."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
    except OSError:
        return True


def tell(logger: logging.Logger, message: str, fields: Mapping[str, Any]) -> None:
    """Log what goes on, whether or not the logger's level lets it through; there is one for each request."""
    record = Record(logger.name, logging.INFO, "", 0, message, (), None)
    record.fields = fields
    logger.handle(record)


class Stderr(logging.Handler):
    """Writes each line in one go: those of several workers do not mix, and no lock is needed."""

    def handle(self, record: logging.LogRecord) -> bool:
        try:
            os.write(STDERR, f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
        except Exception:  # noqa: BLE001  (logging's own rule: it never ends what is logged)
            self.handleError(record)
        return True


class Record(logging.LogRecord):
    """What is logged, without what our lines do not tell."""

    fields: Mapping[str, Any] = {}
    exc_text = stack_info = None
    funcName = ""  # noqa: N815  (logging's own)
    msecs = 0.0

    def __init__(  # logging's own
        self, name: str, level: int, path: str, line: int, msg: Any, args: Any, exc_info: Any, *more: Any, **_: Any
    ) -> None:
        self.name, self.levelno, self.levelname = name, level, logging.getLevelName(level)
        self.msg, self.args, self.exc_info = msg, args, exc_info
        self.pathname, self.lineno, self.filename, self.module = path, line, path, path
        self.created = time.time()


class Lines(logging.Formatter):
    """Writes a record as one line; `fields` of a record become fields of the line."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._second: Tuple[int, str] = (0, "")  # and how it is written

    def _when(self, created: float) -> str:
        second, written = self._second
        if second != int(created):
            second = int(created)
            written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, written
        return f"{written}.{int((created - second) * 1000):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        when = self._when(record.created)
        message = record.getMessage()
        if not message.isprintable():
            message = " ".join(message.splitlines())
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if self._as_json:
            return json.dumps({"time": when, "level": record.levelname.lower(), "message": message, **fields})
        return f"{when} {record.levelname:<7} {message}{_told(fields)}"


def _told(fields: Mapping[str, Any]) -> str:
    """Write fields as they stand in a line: a value that is more than a word as JSON."""
    told = _frame(tuple(fields)) % tuple(fields.values())
    if _is_plain(told, len(fields)):
        return told  # as nearly all are: there is one for each request
    parts = [f" {name}={value}" for name, value in fields.items()]
    return "".join([p if _is_plain(p, 1) else f" {n}={json.dumps(v)}" for p, (n, v) in zip(parts, fields.items())])


@functools.lru_cache(maxsize=64)
def _frame(names: Sequence[str]) -> str:
    """Give what stands around the values of these fields; the names are ours, and few."""
    return "".join([f" {name}=%s" for name in names])


def _is_plain(told: str, fields: int) -> bool:
    """Tell whether in what is told of so many fields each is a word: of printable ASCII, no quote in it, no blank."""
    if told.encode("utf-8", "replace").translate(None, _PLAIN):
        return False
    return told.count(" ") == fields and "= " not in told and not told.endswith("=")


_PLAIN = bytes({*range(0x20, 0x7F)} - {*b'"'})
