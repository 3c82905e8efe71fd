"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.migrated import copy_database

# Folders whose modules use one installation (fixtures of scope "package"), so one process of a run does them all. Otherwise a module is dealt out by itself.
TOGETHER = ("tests/engines/", "tests/hub/", "tests/integration/")


def pytest_configure(config: pytest.Config) -> None:
    """Settings of the tests' own process; the processes that tests start have the real ones."""
    from django.conf import settings

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # real ones are slow on purpose
    settings.WHITENOISE_AUTOREFRESH = True  # or each client of a test begins by listing every static file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that start servers come first: what is left for the end is short, so no process of a run is idle for long."""
    slow = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile`, but folders of TOGETHER are not divided."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any) -> Iterator[None]:
    """The database of the tests' own process: on SQLite, in memory, from a copy. On what DATABASE_URL names, made by the migrations."""
    from django.conf import settings
    from django.db import connection
    from django.test.utils import setup_databases, teardown_databases

    made: Any = []
    with django_db_blocker.unblock():
        if connection.vendor == "sqlite":
            name = connection.creation._get_test_db_name()
            connection.close()
            settings.DATABASES["default"]["NAME"] = connection.settings_dict["NAME"] = name
            connection.ensure_connection()
            copy_database(connection.connection)
        else:
            made = setup_databases(verbosity=0, interactive=False)
    yield
    with django_db_blocker.unblock():
        teardown_databases(made, verbosity=0)
