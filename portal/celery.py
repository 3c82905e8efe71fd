"""The Celery application. Tasks live in workers.tasks; the portal sends them by name only."""

import os

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

app = Celery("atelier")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.imports = ("workers.tasks",)


@setup_logging.connect
def keep_our_logging(**kwargs: object) -> None:
    """Celery would replace the handlers; connecting to this signal keeps those of portal.logconf."""
