"""Objects of the cluster's operators, followed while the cluster serves their kinds.

What an operator says of its object reaches the environment at once, not at the next sweep, also when no pod changes: a refused job, a
cluster that it calls ready. An operator that is installed later is found within minutes; one that is gone is no longer followed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.conf import settings
from django.db import close_old_connections

from k8s.cluster import Cluster, Kind
from k8s.operators import Standing, standing
from k8s.spec import StatusRule
from portal.domain.models import TemplateVersion

from . import served
from .mirror import Mirror
from .operators import kind_in, rules_in
from .orphans import Thing, thing

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 30.0

Rules = tuple[tuple[StatusRule, ...], ...]


@dataclass(frozen=True, kw_only=True)
class OperatedSeen:
    """What the watcher keeps of an operator's object: what the operator says of it by each template's rules, not its heartbeats."""

    thing: Thing
    says: tuple[Standing, ...]
    generation: int
    leaving: bool


def operated_seen(kind: Kind, rules: Rules, item: Mapping[str, Any]) -> OperatedSeen | None:
    found, metadata = thing(kind, item), item["metadata"]
    if found is None or not found.environment:
        return None
    return OperatedSeen(
        thing=found,
        says=tuple(standing(each, item) for each in rules),
        generation=metadata.get("generation", 0),
        leaving=bool(metadata.get("deletionTimestamp")),
    )


def wanted() -> dict[Kind, Rules]:
    """Kinds that templates of any version ask for, with the rules by which their status is read."""
    found: dict[Kind, dict[tuple[StatusRule, ...], None]] = {}
    for documents in TemplateVersion.objects.filter(spec__has_key="operators").values_list("spec__operators", flat=True):
        for document in documents or ():
            found.setdefault(kind_in(document), {})[rules_in(document)] = None
    return {kind: tuple(rules) for kind, rules in found.items()}


class Operated(threading.Thread):
    """Keeps one mirror for each kind that a template asks for and the cluster serves. `changed(old, new)` is called as a mirror's is."""

    def __init__(self, cluster: Cluster, labels: str, changed: Callable[[OperatedSeen | None, OperatedSeen | None], None]) -> None:
        super().__init__(name="operated", daemon=True)
        self.cluster, self.labels, self._changed = cluster, labels, changed
        self._mirrors: dict[Kind, tuple[Rules, Mirror[OperatedSeen]]] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                close_old_connections()
                self.look()
            except Exception as error:  # the database or the cluster is away; the sweep sees what an operator says meanwhile
                logger.warning("kinds of operators not looked at, tried again: error=%s", type(error).__name__)
            self._ending.wait(_LOOK_SECONDS)

    def stop(self) -> None:
        self._ending.set()
        for _, mirror in list(self._mirrors.values()):
            mirror.stop()

    def look(self) -> None:
        """Follow what is to be followed now, and nothing else. Raises `k8s.errors`, DatabaseError."""
        kinds = {} if settings.OPERATORS == "none" else {k: rules for k, rules in wanted().items() if k.plural in served.plurals(self.cluster, k.version)}
        for kind, (rules, mirror) in list(self._mirrors.items()):
            if kinds.get(kind) != rules:
                mirror.stop()
                del self._mirrors[kind]
        for kind in kinds.keys() - self._mirrors.keys():
            mirror = Mirror(self.cluster, kind, self._changed, partial(operated_seen, kind, kinds[kind]), labels=self.labels)
            self._mirrors[kind] = kinds[kind], mirror
            mirror.start()
            logger.info("objects of an operator are followed: kind=%s version=%s", kind.name, kind.version)
