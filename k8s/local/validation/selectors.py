"""Label selectors as they stand in documents."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names
from ..documents import Doc
from ..errors import Cause, forbidden_field, invalid_value, required


def label_selector(selector: Doc, path: str) -> Iterator[Cause]:
    yield from names.labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for index, requirement in enumerate(selector.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = requirement.get("operator"), requirement.get("values") or []
        if operator in {"In", "NotIn"} and not values:
            yield required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in {"Exists", "DoesNotExist"} and values:
            yield forbidden_field(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator not in {"In", "NotIn", "Exists", "DoesNotExist"}:
            yield invalid_value(f"{at}.operator", operator or "", "not a valid selector operator")
        for why in names.qualified(requirement.get("key") or ""):
            yield invalid_value(f"{at}.key", requirement.get("key") or "", why)
