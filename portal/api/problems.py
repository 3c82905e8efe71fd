"""Every error of the API is a problem document (RFC 9457): type, title, status, detail, code, and `errors` per field."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import Error as DatabaseError
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings

from portal.domain.errors import DomainError

logger = logging.getLogger(__name__)
CONTENT_TYPE = "application/problem+json"
_TITLES = {
    400: "Invalid request",
    401: "Sign-in needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Not possible in the present state",
    415: "Send application/json",
    422: "Some fields are not valid",
    429: "Too many requests",
    500: "Something went wrong here",
    503: "Not available now",
}


def problem(
    status: int, code: str, detail: str, *, title: str = "", errors: Mapping[str, list[str]] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A problem document as a response."""
    body: dict[str, Any] = {
        "type": f"urn:atelier:problem:{code}",
        "title": title or _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors:
        body["errors"] = errors
    return Response(body, status=status, headers=dict(headers or {}), content_type=CONTENT_TYPE)


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """Exceptions of the domain, of DRF, and those nobody foresaw. Transactions are the services': they have ended when one arrives here."""
    if isinstance(error, DomainError):
        return problem(error.status, error.code, error.detail, title=error.title, errors=error.errors)
    if isinstance(error, Http404):
        return problem(404, "not_found", "There is nothing at this address.")
    if isinstance(error, PermissionDenied):
        return problem(403, "forbidden", str(error) or "You may not do this.")
    if isinstance(error, exceptions.ValidationError):
        errors = _flat(error.detail)
        return problem(422, "validation", " ".join(f"{field}: {messages[0]}" for field, messages in errors.items()), errors=errors)
    if isinstance(error, exceptions.APIException):
        headers = {}
        if getattr(error, "auth_header", None):
            headers["WWW-Authenticate"] = error.auth_header
        if getattr(error, "wait", None):
            headers["Retry-After"] = str(int(error.wait))
        code = error.default_code if isinstance(error.detail, list | dict) else getattr(error.detail, "code", error.default_code)
        return problem(error.status_code, str(code), _text(error.detail), headers=headers)
    if isinstance(error, OperationalError):
        logger.error("database not available: %s", type(error).__name__, exc_info=error)
        return problem(503, "unavailable", "The database does not answer. Try again in a moment.", headers={"Retry-After": "5"})
    request = context.get("request")
    kind = "database error" if isinstance(error, DatabaseError) else "unforeseen error"
    logger.error("%s in the API: method=%s path=%s", kind, getattr(request, "method", ""), getattr(request, "path", ""), exc_info=error)
    return problem(500, "internal", "The request was not carried out. The log of the portal says why.")


def _text(detail: Any) -> str:
    return " ".join(str(part) for part in detail) if isinstance(detail, list) else str(detail)


def _flat(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    """DRF's nested errors as `a.b` -> messages."""
    if isinstance(detail, Mapping):
        result: dict[str, list[str]] = {}
        for key, value in detail.items():
            result |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
        return result
    messages = detail if isinstance(detail, list) else [detail]
    if any(isinstance(message, Mapping | list) for message in messages):
        result = {}
        for index, message in enumerate(messages):
            if message:
                result |= _flat(message, f"{prefix}.{index}")
        return result
    return {prefix or str(api_settings.NON_FIELD_ERRORS_KEY): [str(message) for message in messages]}
