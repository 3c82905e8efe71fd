"""Runs beside the installation, on its database: tells what is written there, which no API shows.

Answers each line it reads, a JSON list of environment ids, with one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")


def main() -> None:
    import django

    django.setup()
    for line in sys.stdin:
        try:
            answer = look(json.loads(line))
        except Exception:  # told to the one who asked
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def look(identifiers: list[str]) -> dict[str, Any]:
    """Rows of the environments by id, every id by name, and the account book's drift."""
    from django.db import connection

    from portal.domain import services
    from portal.domain.models import Environment, Event, IdempotencyKey

    try:
        fields = ("id", "name", "kind", "workers", "desired", "state", "reason", "message", "last_seq", "attempts", "lease_holder", "reserved", "team__slug")
        rows = {str(row["id"]): {**row, "id": str(row["id"])} for row in Environment.objects.filter(pk__in=identifiers).values(*fields)}
        for key, row in rows.items():
            row["seqs"] = list(Event.objects.filter(environment=key).order_by("seq").values_list("seq", flat=True))
        names: dict[str, list[str]] = {}
        for key, name in Environment.objects.values_list("id", "name"):
            names.setdefault(name, []).append(str(key))
        drift = [f"{found.team}/{found.user or '*'} {found.resource}: used {found.used}, held {found.held}" for found in services.quota_recompute()]
        unanswered = IdempotencyKey.objects.filter(status=None).count()
        return {"rows": rows, "names": names, "drift": drift, "unanswered": unanswered}
    finally:
        connection.close()


if __name__ == "__main__":
    main()
