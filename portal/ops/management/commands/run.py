"""`manage.py run NAME`: become one of the installation's processes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.ops import processes


class Command(BaseCommand):
    help = "Become one process of the installation, after what it needs answers."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", choices=sorted(processes.PROGRAMS))

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        try:
            processes.become(name)
        except TimeoutError as error:
            raise CommandError(f"{name} cannot start: {error}") from error
