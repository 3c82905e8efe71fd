"""Cutting, numbering and cleaning lines: whatever bytes come, what is shown does no harm."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.loglines import SHOWN_BYTES, START, Numberer, Position, RawLine, Splitter, shown

STAMP = "2026-11-22T19:00:00.123456789Z"
TIME = 1795374000123456789

nasty = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.text(max_size=10).map(str.encode),
        st.sampled_from(
            [
                b"\x1b[31m",
                b"\x1b[2J",
                b"\x1b]8;;http://evil\x07",
                b"\x1b]0;",
                b"\x1b\\",
                b"\x07",
                b"\x1b",
                b"\x1b[",
                b"\x1bP",
                b"\x9b31m",
                b"\r",
                b"\b",
                "\u202e".encode(),
                "\u2028".encode(),
                b"<script>",
                b"\xff",
                b"\x00",
                b"\x1b(0",
                b"\x1bc",
                b"\x1b[?1049h",
                b"\x1b[1;31;999999m",
            ]
        ),
    ),
    max_size=30,
).map(b"".join)


def parsed(data: bytes, *cuts: int, limit: int = SHOWN_BYTES) -> list[RawLine]:
    splitter, lines, start = Splitter(limit), [], 0
    for cut in [*sorted(cuts), len(data)]:
        lines += splitter.feed(data[start:cut]) if cut > start else []
        start = max(start, cut)
    return lines + splitter.flush()


@given(nasty)
def test_only_tabs_and_colours_remain_of_whatever_controls_a_terminal(body: bytes) -> None:
    rest = re.sub(r"\x1b\[[0-9;:]{0,64}m", "", shown(body))
    assert not [c for c in rest if unicodedata.category(c) in ("Cc", "Zl", "Zp") and c != "\t"]
    assert not [c for c in rest if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")]


@given(nasty)
def test_cleaning_twice_changes_nothing(body: bytes) -> None:
    once = shown(body)
    assert shown(once.encode()) == once


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=200))
def test_ordinary_text_of_any_language_is_left_alone(text: str) -> None:
    assert shown(text.encode()) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"plain", "plain"),
        (b"windows\r", "windows"),
        (b" 10%\r 50%\r100%", "100%"),
        (b" 10%\r100%\r", "100%"),
        (b"1/9\b\b\b2/9", "2/9"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        (b"a\x1b[2Jb\x1b[10;10Hc\x1b[?25l", "abc"),
        (b"\x1b]0;title\x07x\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\", "xlink"),
        (b"\x1b]52;c;aGk=", "\u241b]52;c;aGk="),
        (b"bell\x07 nul\x00", "bell\u2407 nul\u2400"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("user\u202etxt.exe".encode(), "user<U+202E>txt.exe"),
        (b"<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("训练 👩‍🔬".encode(), "训练 👩‍🔬"),
    ],
)
def test_it_shows_what_a_careful_terminal_would(body: bytes, text: str) -> None:
    assert shown(body) == text


@given(st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.lists(st.integers(0, 600), max_size=6))
def test_lines_are_the_same_wherever_the_stream_was_cut_into_chunks(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(STAMP.encode() + b" " + body + b"\n" for body in bodies)
    lines = parsed(data, *[min(cut, len(data)) for cut in cuts])
    assert [(line.time, line.stamp, line.body, line.cut) for line in lines] == [(TIME, STAMP, body, 0) for body in bodies]


@given(st.integers(0, 5000), st.lists(st.integers(0, 6000), max_size=8))
def test_a_long_line_is_cut_and_the_rest_is_counted(length: int, cuts: list[int]) -> None:
    data = STAMP.encode() + b" " + b"x" * length + b"\nnext\n"
    first, second = parsed(data, *[min(cut, len(data)) for cut in cuts], limit=1000)
    assert (len(first.body), first.cut, first.time) == (min(length, 1000), max(0, length - 1000), TIME)
    assert second.body == b"next"


def test_a_line_of_one_mebibyte_never_lies_in_memory_as_a_whole() -> None:
    splitter = Splitter(1000)
    splitter.feed(STAMP.encode() + b" ")
    for _ in range(16):
        splitter.feed(b"y" * 65536)
        assert len(splitter._rest) < 1100
    (line,) = splitter.feed(b"\n")
    assert (line.body, line.cut) == (b"y" * 1000, 16 * 65536 - 1000)


def test_a_progress_bar_longer_than_the_limit_shows_its_last_state() -> None:
    data = STAMP.encode() + b" " + b"".join(b"\r%5d of 9999" % n for n in range(10_000)) + b"\n"
    (line,) = parsed(data, *range(0, len(data), 700), limit=1000)
    assert shown(line.body) == " 9999 of 9999"


def test_a_cut_amid_a_character_is_not_shown_as_garbage() -> None:
    assert shown("训练".encode()[:4], cut=True) == "训"
    assert shown("训练".encode()[:4]) == "训\ufffd"


@pytest.mark.parametrize(
    ("line", "time", "body"),
    [
        (b"2026-11-22T19:00:00.123456789Z hello", TIME, b"hello"),
        (b"2026-11-23T03:00:00.123456789+08:00 hello", TIME, b"hello"),
        (b"2026-11-22T19:00:00Z hello", 1795374000000000000, b"hello"),
        (b"2026-11-22T19:00:00.5Z ", 1795374000500000000, b""),
        (b"2026-99-22T19:00:00Z hello", None, b"2026-99-22T19:00:00Z hello"),
        (b"unable to retrieve container logs", None, b"unable to retrieve container logs"),
    ],
)
def test_the_time_before_a_line_is_read_in_every_form_kubelets_write(line: bytes, time: int | None, body: bytes) -> None:
    (raw,) = parsed(line + b"\n")
    assert (raw.time, raw.body) == (time, body)


@given(st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=30))
def test_positions_grow_strictly_whatever_the_clock_does(times: list[int | None]) -> None:
    numberer = Numberer()
    positions = [numberer.next(time) for time in times]
    assert all(a < b for a, b in zip([START, *positions], positions, strict=False))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30).map(sorted), st.integers(0, 29))
def test_reading_again_from_the_start_of_a_time_gives_the_same_positions(times: list[int], start: int) -> None:
    whole = Numberer()
    positions = [whole.next(time) for time in times]
    since = times[min(start, len(times) - 1)]
    again = Numberer()
    assert [again.next(time) for time in times if time >= since] == [p for p in positions if p.time >= since]


def test_a_position_survives_being_written_down() -> None:
    assert Position.parse(str(Position(TIME, 3))) == Position(TIME, 3)
    for text in ("", "1", "1-", "-1", "1-2-3", "x-1", "１-1", "9" * 40 + "-1"):
        with pytest.raises(ValueError, match="position"):
            Position.parse(text)
