"""Lines of a pod's log: cut out of a byte stream, numbered so that reading can be resumed, and made harmless to show. Pure.

The log API, asked with `timestamps=true`, puts an RFC 3339 time of nanosecond precision before each line. That time and
a counter among neighbours of the same time is a line's `Position`: the same in every process and after every reconnect.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

SHOWN_BYTES = 16 * 1024  # of one line; the rest is counted, not kept

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_STAMP_BYTES = 36  # longest: 2026-11-22T19:00:00.123456789+08:00 and a blank


class Position(NamedTuple):
    """Where a line stands in the log of one container: time in nanoseconds since 1970, then 0, 1, 2... among lines of the same time."""

    time: int
    nth: int

    def __str__(self) -> str:
        return f"{self.time}-{self.nth}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Reads what `str` wrote. Raises ValueError."""
        match = re.fullmatch(r"(\d{1,19})-(\d{1,9})", text, re.ASCII)
        if match is None:
            raise ValueError("a position is <nanoseconds>-<index>")
        return cls(int(match[1]), int(match[2]))


START = Position(0, -1)


@dataclass(slots=True)
class RawLine:
    """One line as it came. `time` is None when it had no timestamp; `cut` counts bytes left out of `body`."""

    time: int | None
    stamp: str
    body: bytes
    cut: int = 0


@lru_cache(maxsize=64)
def _seconds(text: bytes) -> int:
    return int(datetime.strptime(text.decode(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())


def _split_stamp(line: bytes | bytearray) -> tuple[int | None, str, int]:
    """(nanoseconds, text, where the body begins) of a line; (None, "", 0) without a timestamp."""
    match = _STAMP.match(line)
    if match is None:
        return None, "", 0
    try:
        seconds = _seconds(bytes(match[1]))
    except ValueError:
        return None, "", 0
    zone = bytes(match[3])
    if zone != b"Z":
        seconds -= (1 if zone[:1] == b"+" else -1) * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    nanos = int(match[2].ljust(9, b"0")) if match[2] else 0
    end = match.end()
    if line[end : end + 1] == b" ":
        end += 1
    return seconds * 1_000_000_000 + nanos, match[0].decode(), end


class Splitter:
    """Cuts a stream into lines and never holds more than one chunk and `limit` bytes, whatever the length of a line."""

    def __init__(self, limit: int = SHOWN_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()  # begin of an unfinished line, timestamp included
        self._dropped = 0

    def feed(self, chunk: bytes) -> list[RawLine]:
        """The lines that `chunk` completes."""
        *ended, rest = chunk.split(b"\n")
        lines: list[RawLine] = []
        for piece in ended:
            if self._rest:
                self._rest += piece
                lines.append(self._make(bytes(self._rest), self._dropped))
                self._rest.clear()
                self._dropped = 0
            else:
                lines.append(self._make(piece, 0))
        if rest:
            self._rest += rest
            if len(self._rest) > self._limit + _STAMP_BYTES:
                line = self._make(bytes(self._rest), self._dropped)
                self._rest[len(self._rest) - self._body_length(self._rest) :] = line.body
                self._dropped = line.cut
        return lines

    def flush(self) -> list[RawLine]:
        """What is left at the end of the stream: a last line without its newline."""
        if not self._rest:
            return []
        line = self._make(bytes(self._rest), self._dropped)
        self._rest.clear()
        self._dropped = 0
        return [line]

    @staticmethod
    def _body_length(line: bytearray) -> int:
        return len(line) - _split_stamp(line)[2]

    def _make(self, line: bytes, dropped: int) -> RawLine:
        time, stamp, start = _split_stamp(line)
        body = line[start:]
        if len(body) <= self._limit:
            return RawLine(time, stamp, body, dropped)
        # A progress bar redraws itself after each carriage return: what it drew before is overwritten, not cut.
        redrawn = body.rfind(b"\r", 0, len(body.rstrip(b"\r")))
        if redrawn >= 0:
            body, dropped = body[redrawn + 1 :], 0
        return RawLine(time, stamp, body[: self._limit], dropped + max(0, len(body) - self._limit))


class Numberer:
    """Gives the lines of one stream their positions. A stream must begin at the first line of some time for them to be stable."""

    def __init__(self, last: Position = START) -> None:
        self.last = last

    def next(self, time: int | None) -> Position:
        """Position of the next line; one without a time, or after the node's clock was set back, follows its neighbour."""
        if time is not None and time > self.last.time:
            self.last = Position(time, 0)
        else:
            self.last = Position(self.last.time, self.last.nth + 1)
        return self.last


# Colours and weight (SGR) are the only escape sequences that stay.
_ESCAPES = (
    r"(?P<sgr>\x1b\[[0-9;:]{0,64}m)"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: cursor, erase, modes
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC (titles, links, clipboard), DCS, SOS, PM, APC
    r"|\x1b[ -/]+[0-~]|\x1b[0-OQ-WYZ`-~]"  # character sets, resets, saved cursor
)
# Direction overrides reorder what is read; line separators and tags hide text. Each is shown by its number.
_HIDDEN = r"[\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
_HARMFUL = re.compile(rf"{_ESCAPES}|(?P<control>[\x00-\x08\x0a-\x1f\x7f-\x9f])|(?P<hidden>{_HIDDEN})")


def _harmless(match: re.Match[str]) -> str:
    if match.lastgroup == "sgr":
        return match[0]
    if match.lastgroup == "control":
        code = ord(match[0])
        return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
    if match.lastgroup == "hidden":
        return f"<U+{ord(match[0]):04X}>"
    return ""


def _backspaced(text: str) -> str:
    shown: list[str] = []
    for char in text:
        if char != "\b":
            shown.append(char)
        elif shown:
            shown.pop()
    return "".join(shown)


def shown(body: bytes, *, cut: bool = False) -> str:
    """`body` as text that is safe to show on a page or a terminal: tabs and SGR colours stay, everything else that controls is gone or visible.

    A carriage return and backspaces act as on a terminal (the last thing drawn is what remains); bytes that are not UTF-8 become U+FFFD.
    """
    # when the line was cut, half a character at its end is not an error of the one who printed it
    text = getincrementaldecoder("utf-8")("replace").decode(body, not cut)
    if "\r" in text:
        text = text.rstrip("\r")
        text = text[text.rfind("\r") + 1 :]
    if "\b" in text:
        text = _backspaced(text)
    return _HARMFUL.sub(_harmless, text)
