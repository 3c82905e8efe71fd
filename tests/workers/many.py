"""Many environments in the database, without the verbs that make them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from portal.domain.models import Environment, Flavor, Team, Template, User


def many_environments(
    count: int, *, owner: User, team: Team, states: Sequence[str] = ("stopped",), due: datetime | None = None, **more: Any
) -> list[Environment]:
    """`count` small clusters, their states in turn, each due a second after the one before (from `due` on, by default two hours ago)."""
    template, flavor = Template.objects.get(slug="dask"), Flavor.objects.get(slug="cpu-small")
    begin = due or timezone.now() - timedelta(hours=2)
    rows = []
    for number in range(count):
        state = states[number % len(states)]
        desired = {"stopped": "stopped", "deleted": "deleted"}.get(state, "running")
        fields = {"name": f"e{number}", "kind": "cluster", "team": team, "owner": owner, "template": template, "flavor": flavor}
        fields |= {"template_version": template.version, "template_spec": template.spec, "params": {"workers": 1}, "workers": 1}
        rows.append(Environment(**fields, state=state, desired=desired, next_check_at=begin + timedelta(seconds=number), **more))
    return Environment.objects.bulk_create(rows, batch_size=500)
