"""The built-in catalogue in a test's database: read and checked once by each process, since that takes longer than most tests."""

from __future__ import annotations

from typing import Any

from django.db import connection

from portal.catalogue.loader import load
from portal.domain.models import Accelerator, Flavor, Network, Priority, Storage, Template, TemplateVersion

_MODELS: tuple[Any, ...] = (Accelerator, Network, Flavor, Priority, Storage, Template, TemplateVersion)
_rows: dict[Any, list[Any]] = {}


def put_catalogue() -> None:
    """What `load()` makes of a database without a catalogue and without teams."""
    # Rows with numbers of their own leave PostgreSQL's sequences behind.
    if connection.vendor != "sqlite" or any(model.objects.exists() for model in _MODELS):
        load()
    elif not _rows:
        load()
        _rows.update({model: list(model.objects.order_by("pk")) for model in _MODELS})
    else:
        for model in _MODELS:
            model.objects.bulk_create(_rows[model])
