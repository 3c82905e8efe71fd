"""Quantities ("500m", "1Gi", "2"): parsing, arithmetic by `Decimal`, and Kubernetes' canonical form."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

PATTERN = re.compile(r"^([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([KMGTPE]i)|([numkMGTPE]?)|[eE]([+-]?[0-9]+))$")
_BINARY = {f"{letter}i": 1024 ** (index + 1) for index, letter in enumerate("KMGTPE")}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_NAMES = {power: letter for letter, power in _DECIMAL.items()}
WRONG = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Decimal, str]:
    match = PATTERN.match(text)
    if match is None:
        raise ValueError(WRONG)
    number, binary, suffix, exponent = Decimal(match[1]), match[2], match[3], match[4]
    if binary:
        value, form = number * _BINARY[binary], "binary"
    elif exponent is not None:
        value, form = number.scaleb(int(exponent)), "exponent"
    else:
        value, form = number.scaleb(_DECIMAL[suffix or ""]), "decimal"
    # Kubernetes keeps nothing finer than nano and rounds up.
    return value.quantize(Decimal("1e-9"), rounding=ROUND_CEILING) if value != value.to_integral_value() else value, form


def parse(value: Any) -> Decimal:
    """The number that a quantity stands for, in its unit (cores, bytes, pieces). ValueError when it is none."""
    return _parsed(str(value))[0]


def canonical(value: Any) -> str:
    """A quantity in the form in which Kubernetes stores it: "0.5" is "500m", "1024Mi" is "1Gi"."""
    number, form = _parsed(str(value))
    return write(number, binary=form == "binary")


def write(number: Decimal, *, binary: bool = False) -> str:
    """Shortest exact text: no fraction, the largest suffix that leaves none."""
    if number == 0:
        return "0"
    if binary and abs(number) >= 1024 and number == number.to_integral_value():
        whole, power = int(number), 0
        while power < 6 and whole % 1024 == 0:
            whole, power = whole // 1024, power + 1
        return f"{whole}{'' if not power else 'KMGTPE'[power - 1] + 'i'}"
    power = -9
    whole = int(number.scaleb(9))
    while power < 18 and whole % 1000 == 0:
        whole, power = whole // 1000, power + 3
    return f"{whole}{_NAMES[power]}"


@lru_cache(maxsize=4096)
def is_binary(text: str) -> bool:
    """Whether a quantity is written in powers of 1024, which sums of it keep."""
    return _parsed(text)[1] == "binary"
