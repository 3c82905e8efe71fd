"""`manage.py prepare [--wait NAME ...]`: what `make up` does before anybody works; optionally wait until processes answer."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.ops.answers import ANSWERS, wait_for
from portal.ops.prepare import prepare


class Command(BaseCommand):
    help = "Migrate, load the catalogue, make the demo users and the Hub's OIDC client; then wait until the processes named answer."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wait", nargs="+", choices=sorted(ANSWERS), default=[], metavar="NAME")

    def handle(self, *args: Any, wait: list[str], **options: Any) -> None:
        prepare()
        try:
            wait_for(tuple(wait))
        except TimeoutError as error:
            raise CommandError(str(error)) from error
