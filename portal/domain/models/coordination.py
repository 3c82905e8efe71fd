"""Rows by which processes take turns. They hold no knowledge; losing them costs one turn."""

from __future__ import annotations

from django.db import models


class Mutex(models.Model):
    """A name to lock: `select_for_update` on its row is held until the transaction ends, so a killed holder holds nothing."""

    name = models.CharField(max_length=60, primary_key=True)


class Tick(models.Model):
    """When a periodic task is due next. Whoever moves `due_at` on sends the task; any number of clocks may run."""

    name = models.CharField(max_length=60, primary_key=True)
    due_at = models.DateTimeField()
