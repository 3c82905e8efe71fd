"""Refusals of the API, worded and coded as Kubernetes' `Status` objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class StatusError(Exception):
    """A request that was refused: HTTP `code`, Kubernetes' `reason` word, message, and the `details` of the Status object."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message, "reason": self.reason}
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body


@dataclass(frozen=True)
class Cause:
    """One field that is wrong. `kind` is Kubernetes' cause word, e.g. FieldValueInvalid; `detail` the text after the field's path."""

    kind: str
    field: str
    detail: str

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}"


def shown(value: Any) -> str:
    """A value as the messages of Kubernetes show it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        import json

        return json.dumps(value, separators=(",", ":"))
    return str(value)


def required(field: str, detail: str = "") -> Cause:
    return Cause("FieldValueRequired", field, "Required value" + (f": {detail}" if detail else ""))


def invalid_value(field: str, value: Any, detail: str) -> Cause:
    return Cause("FieldValueInvalid", field, f"Invalid value: {shown(value)}: {detail}")


def not_supported(field: str, value: Any, allowed: Iterable[str]) -> Cause:
    listed = ", ".join(f'"{item}"' for item in sorted(allowed))
    return Cause("FieldValueNotSupported", field, f"Unsupported value: {shown(value)}: supported values: {listed}")


def duplicate(field: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", field, f"Duplicate value: {shown(value)}")


def forbidden_field(field: str, detail: str) -> Cause:
    return Cause("FieldValueForbidden", field, f"Forbidden: {detail}")


def not_found_field(field: str, value: Any) -> Cause:
    return Cause("FieldValueNotFound", field, f"Not found: {shown(value)}")


def too_long(field: str, limit: int, unit: str = "bytes") -> Cause:
    return Cause("FieldValueTooLong", field, f"Too long: may not be more than {limit} {unit}")


def _details(name: str, group: str, kind: str, **more: Any) -> dict[str, Any]:
    found = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in found.items() if value not in ("", None, [])}


def qualified(group: str, plural: str) -> str:
    """The resource as messages name it: `pods`, `statefulsets.apps`."""
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> StatusError:
    return StatusError(404, "NotFound", f'{qualified(group, plural)} "{name}" not found', _details(name, group, plural))


def already_exists(group: str, plural: str, name: str) -> StatusError:
    return StatusError(409, "AlreadyExists", f'{qualified(group, plural)} "{name}" already exists', _details(name, group, plural))


def conflict(group: str, plural: str, name: str, why: str = "") -> StatusError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return StatusError(409, "Conflict", f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}', _details(name, group, plural))


def forbidden(group: str, plural: str, name: str, why: str, causes: Iterable[dict[str, Any]] = ()) -> StatusError:
    return StatusError(403, "Forbidden", f'{qualified(group, plural)} "{name}" is forbidden: {why}', _details(name, group, plural, causes=list(causes)))


def invalid(group: str, kind: str, name: str, causes: Iterable[Cause]) -> StatusError:
    found = list(dict.fromkeys(causes))
    text = str(found[0]) if len(found) == 1 else "[" + ", ".join(map(str, found)) + "]"
    listed = [{"reason": cause.kind, "message": cause.detail, "field": cause.field} for cause in found]
    head = f"{kind}.{group}" if group else kind
    return StatusError(422, "Invalid", f'{head} "{name}" is invalid: {text}', _details(name, group, kind, causes=listed))


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def path_not_found() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> StatusError:
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def gone(message: str) -> StatusError:
    return StatusError(410, "Expired", message)


def unsupported_media(message: str) -> StatusError:
    return StatusError(415, "UnsupportedMediaType", message)


def too_many(message: str, seconds: int = 0) -> StatusError:
    return StatusError(429, "TooManyRequests", message, {"retryAfterSeconds": seconds} if seconds else {})
