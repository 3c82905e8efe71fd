"""Fixtures of the page tests: a world made through the services, a client per person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.domain.models import User

from .world import World, make_world


@pytest.fixture(autouse=True)
def _plain_static_files(settings: Any) -> None:
    """Addresses of static files without the hashed names that `collectstatic` makes; tests/browser has the real ones."""
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}


@pytest.fixture
def world(db: None, settings: Any) -> World:
    return make_world()


@pytest.fixture
def client_of() -> Callable[[User], Client]:
    def make(user: User) -> Client:
        client = Client(enforce_csrf_checks=False)
        client.force_login(user)
        return client

    return make
