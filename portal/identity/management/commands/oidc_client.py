from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from portal.identity.clients import hub_client_ensure


class Command(BaseCommand):
    help = "Make the Hub's row as a client of the OIDC provider match the settings. Safe to repeat."
    requires_system_checks: list[str] = []  # they would load every page, which takes as long as the work

    def handle(self, *args: Any, **options: Any) -> None:
        changed = hub_client_ensure()
        if options["verbosity"]:
            self.stdout.write(f"The Hub's OIDC client {'was brought' if changed else 'is'} in line with the settings.")
