"""What holds for every test."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Settings of the tests' own process; the processes that tests start have the real ones."""
    from django.conf import settings

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # real ones are slow on purpose
    settings.WHITENOISE_AUTOREFRESH = True  # or each client of a test begins by listing every static file
