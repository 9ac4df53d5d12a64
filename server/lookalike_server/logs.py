"""What is logged, and how: lines for people, or one JSON object a line. Never an image, never a token."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from lookalike_server.caller import CALLER
from lookalike_server.calls import CallRecord

LEVELS = ("debug", "info", "warning", "error")

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_log = logging.getLogger("lookalike_server.calls")


def configure(form: str, level: str) -> None:
    """Sends the log of this process to standard error, as "text" or "json"."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Of this program's own lines; those of the libraries stay at warnings."""
    for name in ("lookalike_server", "lookalike_extractor"):
        logging.getLogger(name).setLevel(level.upper())


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message; request_id within a call; exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        call = CALLER.get().record
        if call is not None:
            line["request_id"] = call.request_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class CallLog:
    """A calls.CallObserver: a line for each call, at level "info"."""

    @contextmanager
    def around(self, record: CallRecord, metadata: Mapping[str, Any]) -> Iterator[None]:
        try:
            yield
        finally:
            if _log.isEnabledFor(logging.INFO):
                _log.info("%s", _line(record), extra={"fields": _fields(record)})


def _line(record: CallRecord) -> str:
    words = [record.method, record.code, record.reason, f"{record.seconds * 1000:.1f} ms", record.peer]
    return " ".join(word for word in words if word)


def _fields(record: CallRecord) -> dict[str, Any]:
    fields = {
        "request_id": record.request_id,
        "method": record.method,
        "code": record.code,
        "reason": record.reason,
        "seconds": round(record.seconds, 6),
        "images": record.images,
        "failed": record.failed,
        "peer": record.peer,
        "token": record.token,
    }
    return {name: value for name, value in fields.items() if value != ""}
