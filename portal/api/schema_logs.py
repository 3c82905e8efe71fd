"""OpenAPI: the log endpoint, which streams and so is no view of DRF (see portal.live.views)."""

from __future__ import annotations

from typing import Any

from .problems import CONTENT_TYPE


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def add_logs(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """drf-spectacular postprocessing hook."""
    problem = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    meanings = {
        401: "No valid token or session",
        404: "Absent, or not visible to you",
        405: "Only GET",
        422: "A parameter is not valid",
        503: "The cluster does not answer",
    }
    result["paths"]["/api/v1/environments/{environment_id}/logs"] = {
        "get": {
            "operationId": "environments_logs_retrieve",
            "description": "What its replicas print, as text; streamed with follow=true. Of one that is gone: what was archived.",
            "parameters": [
                {"name": "environment_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}},
                _query("replica", {"type": "string"}, "Only of this pod"),
                _query("container", {"type": "string"}, "Only of this container"),
                _query("tail", {"type": "integer", "minimum": 0}, "Only the last lines"),
                _query("follow", {"type": "boolean"}, "Go on as more is printed"),
                _query("timestamps", {"type": "boolean"}, "Put the time before each line"),
            ],
            "tags": ["environments"],
            "security": [{"bearer": []}, {"cookieAuth": []}],
            "responses": {
                "200": {"description": "The log", "content": {"text/plain": {"schema": {"type": "string"}}}},
                **{str(status): {"description": meaning, "content": problem} for status, meaning in meanings.items()},
            },
        }
    }
    return result
