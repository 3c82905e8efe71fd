from __future__ import annotations

import pytest


@pytest.fixture
def sent_tasks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Names and arguments of tasks that would go to the queue, in order."""
    from portal.celery import app

    sent: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(app, "send_task", lambda name, args=(), **options: sent.append((name, list(args))))
    return sent
