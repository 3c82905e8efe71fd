"""Lists come in pages of `results` with the address of the `next` one."""

from __future__ import annotations

from typing import Any

from rest_framework.pagination import CursorPagination
from rest_framework.response import Response

from portal.domain.errors import ValidationError

DEFAULT_LIMIT, MAX_LIMIT = 50, 200


def limit_of(request: Any) -> int:
    """The `limit` of a request. Raises ValidationError."""
    return whole_number(request, "limit", default=DEFAULT_LIMIT, least=1, most=MAX_LIMIT)


def whole_number(request: Any, name: str, *, default: int, least: int, most: int) -> int:
    """A whole number from the query. Raises ValidationError naming it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and least <= int(text) <= most):
        raise ValidationError.field(name, f"Must be a whole number from {least} to {most}.")
    return int(text)


def page_schema(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    """OpenAPI schema of one page."""
    following = {"type": ["string", "null"], "format": "uri", "description": "Address of the next page; null on the last one"}
    return {"type": "object", "required": ["results", "next"], "properties": {"results": schema, "next": following, **more}}


class NewestFirst(CursorPagination):
    """Cursor pagination by creation time."""

    ordering = ("-created_at", "id")
    page_size = DEFAULT_LIMIT
    page_size_query_param = "limit"
    max_page_size = MAX_LIMIT

    def get_page_size(self, request: Any) -> int:
        return limit_of(request)

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"results": data, "next": self.get_next_link()})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return page_schema(schema)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {"name": "cursor", "in": "query", "required": False, "schema": {"type": "string"}, "description": "From `next` of the page before"},
            {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}},
        ]


class Whole(NewestFirst):
    """For short lists: everything in one page of the same form."""

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> list[Any]:
        return list(queryset)

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"results": data, "next": None})

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return []
