"""OpenAPI: the problem documents that every operation may answer with."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent

from .problems import CONTENT_TYPE

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem document",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and what to do, for people"},
        "code": {"type": "string", "description": "Stable, for programs"},
        "errors": {
            "type": "object",
            "description": "Messages per field, or per quota resource",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
    },
}
_MEANING = {
    400: "Not JSON",
    401: "No valid token or session",
    403: "The token lacks the scope, or you may not do this",
    404: "Absent, or not visible to you",
    409: "Not possible in the present state, or quota exceeded",
    415: "The body is not application/json",
    422: "Some fields are not valid",
    503: "The database does not answer",
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeat a request with the same key for 24 hours: it has its effect once",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}


class ProblemSchema(AutoSchema):
    """Adds problem responses by what an operation takes: a body, an id, a query."""

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        component = ResolvedComponent(name="Problem", type=ResolvedComponent.SCHEMA, object="Problem", schema=_PROBLEM)
        self.registry.register_on_missing(component)
        if self.method == "POST":
            operation.setdefault("parameters", []).append(_KEY)
        for status in self._problems(operation):
            operation["responses"].setdefault(str(status), {"description": _MEANING[status], "content": {CONTENT_TYPE: {"schema": component.ref}}})
        return operation

    def _problems(self, operation: dict[str, Any]) -> list[int]:
        statuses = {401, 403, 503}
        places = {parameter["in"] for parameter in operation.get("parameters", [])}
        if "path" in places:
            statuses.add(404)
        if "query" in places or "header" in places:
            statuses |= {404, 422}  # 404: a cursor that leads nowhere
        if "requestBody" in operation:
            statuses |= {400, 415, 422}
        if self.method not in ("GET", "HEAD"):
            statuses |= {400, 409, 415}
        return sorted(statuses)
