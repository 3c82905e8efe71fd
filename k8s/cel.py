"""The part of CEL by which devices are selected: comparisons of a device's driver, attributes and capacities, joined by `&&`. Pure.

    device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].profile == '1g.10gb'
    device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0

Kubernetes knows all of CEL; what is more than this is told as `Unsupported`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from . import quantity

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"==": eq, "!=": ne, ">=": ge, "<=": le, ">": gt, "<": lt}
_SIDE = r"device\.(?P<what>driver|attributes|capacity)(?:\[(?P<quote>['\"])(?P<domain>[^'\"]+)(?P=quote)\]\.(?P<name>[A-Za-z_]\w*))?"
_QUANTITY = r"quantity\(['\"](?P<quantity>[^'\"]+)['\"]\)"
_TERM = re.compile(
    rf"{_SIDE}\s*(?:(?P<op>==|!=|>=|<=|>|<)\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<number>-?\d+)|(?P<truth>true|false))"
    rf"|\.compareTo\({_QUANTITY}\)\s*(?P<compared>==|!=|>=|<=|>|<)\s*0)"
)


class Unsupported(ValueError):
    """An expression is more than this part of CEL."""


def matches(expression: str, driver: str, device: Mapping[str, Any]) -> bool:
    """Whether a device of a ResourceSlice is selected. What an expression names and a device does not have does not match. Raises Unsupported."""
    terms = [_TERM.fullmatch(term.strip()) for term in expression.split("&&")]
    if not all(terms):
        raise Unsupported(f"{expression!r} is more than comparisons joined by &&")
    return all(_holds(term, driver, device) for term in terms if term)


def _holds(term: re.Match[str], driver: str, device: Mapping[str, Any]) -> bool:
    what, domain, name = term["what"], term["domain"], term["name"]
    if (what == "driver") != (domain is None):
        raise Unsupported(f"{term[0]!r} names no attribute")
    if term["compared"]:
        found = _named(device.get("capacity") or {}, driver, domain, name)
        if found is None or what != "capacity":
            return False
        return _OPERATORS[term["compared"]](quantity.parse(str(found.get("value", "0"))), quantity.parse(term["quantity"]))
    value: Any = driver
    if what == "attributes":
        found = _named(device.get("attributes") or {}, driver, domain, name)
        value = next(iter(found.values()), None) if found else None
    elif what == "capacity":
        raise Unsupported(f"{term[0]!r}: capacities are compared by compareTo(quantity('...'))")
    wanted: Any = term["text"][1:-1] if term["text"] is not None else int(term["number"]) if term["number"] else term["truth"] == "true"
    if type(value) is not type(wanted):
        return False
    return _OPERATORS[term["op"]](value, wanted)


def _named(found: Mapping[str, Any], driver: str, domain: str, name: str) -> Mapping[str, Any] | None:
    """A name without a domain is in its driver's."""
    value = found.get(f"{domain}/{name}", found.get(name) if domain == driver else None)
    return value if isinstance(value, Mapping) else None


def selects(spec: Mapping[str, Any], driver: str, device: Mapping[str, Any]) -> bool:
    """Whether all `selectors` of a DeviceClass' spec, or of a request, select a device. Raises Unsupported."""
    return all(matches(str((each.get("cel") or {}).get("expression", "")), driver, device) for each in spec.get("selectors") or ())
