"""What must be in the database before anybody works: tables, catalogue, demo users, the Hub's OIDC client. Every step may be repeated."""

from __future__ import annotations

from django.core.management import call_command


def prepare() -> None:
    """Migrate, load, seed."""
    call_command("migrate", interactive=False, verbosity=0)
    for command in ("load_catalogue", "oidc_client", "seed_demo"):
        call_command(command, verbosity=0)
