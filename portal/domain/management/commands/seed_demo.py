"""`manage.py seed_demo`: teams, people and starting quotas to try the portal with. Run again it changes nothing that is there."""

from __future__ import annotations

import json
import secrets
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import transaction

from portal.domain import services
from portal.domain.models import Accelerator, Membership, Quota, Team, User
from portal.domain.quantities import CPU, ENVIRONMENTS, MEMORY, STORAGE, accelerator_resource
from portal.runtime import write_private

GIB = 2**30
TEAMS = {"vision": "Vision", "speech": "Speech"}
PEOPLE: dict[str, tuple[str, str, str]] = {  # user name: full name, team, role
    "alice": ("Alice", "vision", Membership.Role.ENGINEER),
    "lena": ("Lena", "vision", Membership.Role.LEAD),
    "bob": ("Bob", "speech", Membership.Role.ENGINEER),
    "charlie": ("Charlie", "", ""),
    "admin": ("Admin", "", ""),
}
# Millicores and bytes; enough CPU and memory that all devices of a team can be in use at once.
TEAM_LIMITS = {ENVIRONMENTS: 20, CPU: 96_000, MEMORY: 640 * GIB, STORAGE: 200 * GIB}
MEMBER_LIMITS = {ENVIRONMENTS: 10, CPU: 64_000, MEMORY: 512 * GIB, STORAGE: 100 * GIB}
DEVICES = {"vision": {"nvidia-a100-80g": 8, "nvidia-gpu": 8}, "speech": {"nvidia-gpu": 2, "ascend-910": 8}}


class Command(BaseCommand):
    help = "Make demo teams vision (alice, lead lena) and speech (bob), an outsider charlie and an admin, with quotas. Passwords: var/credentials.json."

    def handle(self, *args: Any, **options: Any) -> None:
        path = settings.VAR_DIR / "credentials.json"
        passwords: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        fresh = {name: secrets.token_urlsafe(12) for name in PEOPLE if name not in passwords}
        if fresh:  # written first: a password that is set but kept nowhere would lock everybody out
            passwords |= fresh
            write_private(path, json.dumps(passwords, indent=2) + "\n")
        with transaction.atomic():
            self._people(passwords)
            self._teams()
        self.stdout.write(f"Teams {', '.join(TEAMS)}; users {', '.join(PEOPLE)}. Passwords are in {path}.")

    def _people(self, passwords: dict[str, str]) -> None:
        for name, (full, _, _) in PEOPLE.items():
            admin = name == "admin"
            defaults = {"first_name": full, "email": f"{name}@example.com", "is_staff": admin, "is_superuser": admin}
            user, created = User.objects.get_or_create(username=name, defaults=defaults)
            if created:
                user.set_password(passwords[name])
                user.save(update_fields=["password"])

    def _teams(self) -> None:
        for slug, title in TEAMS.items():
            new = not Team.objects.filter(slug=slug).exists()
            team = services.team_create(actor=None, slug=slug, name=title)
            if new:
                self._limits(team)
        for name, (_, slug, role) in PEOPLE.items():
            user = User.objects.get(username=name)
            if slug and not Membership.objects.filter(team__slug=slug, user=user).exists():
                team = Team.objects.get(slug=slug)
                services.membership_set(actor=None, team=team, user=user, role=role)
                for resource, limit in MEMBER_LIMITS.items():
                    if not Quota.objects.filter(team=team, user=user, resource=resource).exists():
                        services.quota_set(actor=None, team=team, user=user, resource=resource, limit=limit)

    def _limits(self, team: Team) -> None:
        for resource, limit in TEAM_LIMITS.items():
            services.quota_set(actor=None, team=team, user=None, resource=resource, limit=limit)
        for accelerator in Accelerator.objects.all():
            limit = DEVICES[team.slug].get(accelerator.slug, 0)
            services.quota_set(actor=None, team=team, user=None, resource=accelerator_resource(accelerator.slug), limit=limit)
