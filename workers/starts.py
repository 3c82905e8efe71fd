"""Follows notebooks that are starting at the Hub: its words go into the history, its verdict wakes a worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from django.db import close_old_connections

from k8s import names
from portal.domain.lifecycle import State
from portal.domain.models import Environment

from .history import Line, Recorder
from .hub import Hub, HubAbsent, HubError, HubRefused
from .nudges import Nudges

logger = logging.getLogger(__name__)

_FOLLOW_EVERY = 2.0
_AT_ONCE = 64


class Starts:
    """`may`: whether this process is the one that acts."""

    def __init__(self, hub: Hub, nudges: Nudges, recorder: Recorder, ending: threading.Event, may: Callable[[], bool]) -> None:
        self._hub, self._nudges, self._recorder, self._ending, self._may = hub, nudges, recorder, ending, may
        self._followed: set[str] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Look for starts that no pod has told of: a spawn can fail before there is one."""
        while not self._ending.wait(_FOLLOW_EVERY):
            if not self._may():
                continue
            try:
                close_old_connections()
                rows = Environment.objects.filter(kind="notebook", state=State.PROVISIONING).select_related("owner").only("name", "owner__username")
                for environment in rows:
                    name = names.object_name(environment.name, str(environment.pk))
                    self.follow(str(environment.pk), environment.owner.username, name)
            except Exception as error:  # the database is away
                logger.warning("starting notebooks not listed, tried again: error=%s", type(error).__name__)

    def follow(self, environment_id: str, owner: str, name: str) -> None:
        """Follow a start in a thread of its own, unless that is being done."""
        with self._lock:
            if not owner or environment_id in self._followed or len(self._followed) >= _AT_ONCE:
                return
            self._followed.add(environment_id)
        threading.Thread(target=self._follow, args=(environment_id, owner, name), name="start", daemon=True).start()

    def _follow(self, environment_id: str, owner: str, name: str) -> None:
        started = int(time.time())
        try:
            for number, progress in enumerate(self._hub.progress(owner, name)):
                if progress.ready or progress.failed:
                    self._nudges.nudge(environment_id)
                # What pods go through is told from the cluster's own events; here only what the Hub alone knows.
                if progress.message and not progress.is_pod_event and not progress.failed:
                    told = Line(kind="info", code="Hub", message=f"JupyterHub: {progress.message}", source=f"hub:{name}:{started}:{number}")
                    self._recorder.tell(environment_id, told)
        except (HubAbsent, HubRefused):
            pass  # not starting (any more)
        except HubError as error:
            logger.info("progress of a start broke off, taken up again: environment=%s error=%s", environment_id, error)
        except Exception:
            logger.exception("a start could not be followed: environment=%s", environment_id)
        finally:
            self._ending.wait(1.0)
            with self._lock:
                self._followed.discard(environment_id)
