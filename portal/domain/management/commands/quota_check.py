"""`manage.py quota_check [--repair]`: compare the quota accounts with the environments that hold them. Exits non-zero on unrepaired drift."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.domain import services


class Command(BaseCommand):
    help = "Compare the quota accounts with the environments and volumes that hold them."
    requires_system_checks: list[str] = []  # they would load every page, which takes as long as the work

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--repair", action="store_true", help="Write what is held into the accounts")

    def handle(self, *args: Any, repair: bool, **options: Any) -> None:
        drifts = services.quota_recompute(repair=repair)
        for drift in drifts:
            whose = f"{drift.user} in team {drift.team}" if drift.user else f"team {drift.team}"
            self.stdout.write(f"{whose}: {drift.resource}: account says {drift.used}, held are {drift.held}")
        if drifts and not repair:
            raise CommandError(f"{len(drifts)} accounts have drifted; --repair corrects them.")
        self.stdout.write("Repaired." if drifts else "No drift.")
