"""Fixtures of the page tests: a world made through the services, a client per person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.domain.models import User

from .world import World, make_world


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


@pytest.fixture(scope="session")
def compiled_catalogue() -> None:
    """The Chinese catalogue as Django reads it; `make messages` makes the same file."""
    from babel.messages.mofile import write_mo
    from django.conf import settings
    from django.utils.translation import trans_real

    from portal.web.translations import catalogue_path, read

    path = catalogue_path(settings.BASE_DIR, "zh_Hans")
    with path.with_suffix(".mo").open("wb") as file:
        write_mo(file, read(path, "zh_Hans"))
    trans_real._translations.clear()
