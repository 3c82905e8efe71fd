"""A worker whose database comes and goes: `python -m tests.workers.losing_database KUBECONFIG`, with DATABASE_URL.

Converges one cluster for ever, as messages and sweeps would make it, and prints its state whenever it changes; "away" while it cannot know.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import InterfaceError, OperationalError, close_old_connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from k8s.cluster import Cluster  # noqa: E402
from portal.celery import app  # noqa: E402
from portal.domain import selectors  # noqa: E402
from portal.domain.models import Environment  # noqa: E402
from workers.converge import converge  # noqa: E402
from workers.hub import Hub  # noqa: E402

from .conftest import make_world, only_runs  # noqa: E402

app.conf.broker_url = "memory://"
settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def main() -> None:
    call_command("migrate", verbosity=0)
    made = make_world().request(params={"workers": 1})
    for role in made.template_spec["roles"]:
        only_runs(role, ["python", "-c", "import time; time.sleep(3600)"])
    Environment.objects.filter(pk=made.pk).update(template_spec=made.template_spec)
    cluster, hub = Cluster(Path(sys.argv[1])), Hub("http://127.0.0.1:9/hub/api", "none")
    last = ""
    while True:
        close_old_connections()
        try:
            if made.pk in selectors.environments_due(timezone.now(), 10):  # what a sweep does
                converge(made.pk, cluster=cluster, hub_client=hub)
            now = Environment.objects.values_list("state", flat=True).get(pk=made.pk)
        except (OperationalError, InterfaceError):
            now = "away"
        if now != last:
            print(now, flush=True)
            last = now
        time.sleep(0.1)


if __name__ == "__main__":
    main()
