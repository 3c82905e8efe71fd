"""Addresses of the websockets."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, path, re_path

from .bell import notifications_socket
from .consumers import environment_socket, environments_socket, logs_socket, unknown_socket

_any: Any = path  # Django types a route's target as an HTTP view; channels routes to any ASGI application
websocket_urlpatterns: list[URLPattern] = [
    _any("ws/notifications/", notifications_socket),
    _any("ws/environments/", environments_socket),
    _any("ws/environments/<uuid:environment_id>/", environment_socket),
    _any("ws/environments/<uuid:environment_id>/logs/", logs_socket),
    re_path("", unknown_socket),  # type: ignore[arg-type]
]
