"""Fixtures of these tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.domain import services
from portal.domain.models import User
from tests.portal.world import World, broker, world

__all__ = ["broker", "world"]


class Caller:
    """A script with a token (or none) that speaks JSON to the API."""

    def __init__(self, token: str = "") -> None:
        self.client = Client(raise_request_exception=False)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        address = path if path.startswith("http") else f"/api/v1{path}"
        content: dict[str, Any] = {}
        if body is not None:
            content = {"data": body if isinstance(body, str) else json.dumps(body), "content_type": "application/json"}
        return self.client.generic(method, address, **content, headers=self.headers | headers)


@pytest.fixture
def caller(world: World) -> Callable[..., Caller]:
    """Makes callers: `caller("alice")`, `caller("alice", "environments:read")`, `caller(None)` without a token."""

    def make(name: str | None, *scopes: str) -> Caller:
        if name is None:
            return Caller()
        user = User.objects.get(username=name)
        return Caller(services.token_create(actor=user, name="test", scopes=scopes or ["environments:write", "tokens"])[1])

    return make


@pytest.fixture
def alice(caller: Callable[..., Caller]) -> Caller:
    return caller("alice")
