"""The Celery application. Tasks live in workers.tasks; the portal sends them by name only."""

import os

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

app = Celery("atelier")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.imports = ("workers.tasks",)
# A new process of the pool that says nothing for so long is killed, and another is made; by default after 4 s, which on a busy machine is for ever.
app.conf.worker_proc_alive_timeout = 60.0


@setup_logging.connect
def keep_our_logging(**kwargs: object) -> None:
    """Celery would replace the handlers; connecting to this signal keeps those of portal.logconf."""
