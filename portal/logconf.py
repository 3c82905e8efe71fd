"""Logging of every process: one line per event on stderr, with the environment or task it belongs to.

Values are rendered with `repr`, so text that users wrote cannot start a new line or colour a terminal.
"""

from __future__ import annotations

import logging.config
import sys
from typing import Any

if "rich" not in sys.modules:
    # structlog loads rich where it is installed, to draw tracebacks that we do not use: a tenth of the time in which each process starts.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]
else:
    import structlog

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _escape(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Control characters in the message itself become escapes (log injection, ASVS 16.4.1)."""
    text = str(event.get("event", ""))
    event["event"] = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return event


def configure(level: str = "INFO", *, json: bool = False) -> None:
    """Set up the standard library's logging and structlog alike. `json`: one JSON document per line, for collectors."""
    renderer: Any = structlog.processors.JSONRenderer() if json else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "logger", "event"])
    final = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, _escape, renderer]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": structlog.stdlib.ProcessorFormatter, "foreign_pre_chain": _SHARED, "processors": final}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                "django.server": {"handlers": [], "propagate": True},
                "django": {"handlers": [], "propagate": True},
                "httpx": {"level": "WARNING"},
            },
        }
    )
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
