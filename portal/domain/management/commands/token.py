"""`manage.py token USER`: an API token for scripts. Prints the token and nothing else."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.domain import services
from portal.domain.durations import parse_duration
from portal.domain.errors import DomainError
from portal.domain.models import User
from portal.domain.tokens import SCOPES, scope_named


class Command(BaseCommand):
    help = "Print a new API token of a user. It is shown only now; the database keeps its SHA-256."
    requires_system_checks: list[str] = []  # they would load every page, which takes as long as the work

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="User name")
        parser.add_argument("--scopes", default="read,write", help=f"Comma-separated: read, write or {', '.join(SCOPES)} (default: read,write)")
        parser.add_argument("--expires", default="30d", help="How long it is valid, such as 12h or 30d (default: 30d)")
        parser.add_argument("--name", default="manage.py token", help="What it is called in the list of tokens")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']}.")
        try:
            scopes = [scope_named(part.strip()) for part in options["scopes"].split(",") if part.strip()]
            _, plaintext = services.token_create(actor=user, name=options["name"], scopes=scopes, expires_in=parse_duration(options["expires"]))
        except (DomainError, ValueError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(plaintext)
