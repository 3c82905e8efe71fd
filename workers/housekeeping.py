"""What no single environment does for itself: volumes to purge, and objects that nobody owns any more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster
from portal.domain import selectors, services
from portal.domain.lifecycle import State
from portal.domain.models import Environment, Team

from .actions import claim_gone

logger = logging.getLogger(__name__)

SEEN = f"{names.PREFIX}/orphan-since"  # annotation: when an object was first seen without its environment
_SECOND_SIGHTING = timedelta(minutes=1)


def volumes_purge(cluster: Cluster, team: Team | None = None) -> None:
    """Delete the claims of volumes to be purged; their rows and the storage they hold go when the claims are gone. Raises `k8s.errors`."""
    for volume in selectors.volumes_to_purge(team):
        if claim_gone(cluster, names.namespace(volume.team.slug), volume.claim):
            services.volume_forget(volume.pk)
            logger.info("volume purged: volume=%s", volume.pk)


def orphans_remove(cluster: Cluster, now: datetime | None = None) -> int:
    """Delete objects of this installation whose environment is deleted or unknown; how many were deleted. Raises `k8s.errors`.

    Only at the second sighting, at least a minute after the first, and only the very object that was seen (by uid): a row
    may be committed a moment after its objects are listed, and a restored backup must not cost anyone's work at once.
    """
    now = now or datetime.now(UTC)
    label = f"{names.INSTALL}={settings.INSTALL_ID},{names.ENVIRONMENT}"
    deleted = 0
    for items in cluster.gather([(kind, "", label, "") for kind in api.ENVIRONMENT_KINDS]):
        if not items:
            continue
        known = _living({item["metadata"]["labels"][names.ENVIRONMENT] for item in items})
        for item in items:
            if item["metadata"]["labels"][names.ENVIRONMENT] not in known and _second_sighting(cluster, item, now):
                deleted += cluster.delete(item)
                logger.warning("orphan deleted: kind=%s name=%s namespace=%s", item["kind"], item["metadata"]["name"], item["metadata"]["namespace"])
    return deleted


def _living(labels: set[str]) -> set[str]:
    """Those of the labels that name an environment which is not deleted."""
    keys = [key for label in labels if (key := _uuid(label))]
    return {str(key) for key in Environment.objects.filter(pk__in=keys).exclude(state=State.DELETED).values_list("pk", flat=True)}


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _second_sighting(cluster: Cluster, item: Mapping[str, Any], now: datetime) -> bool:
    if item["metadata"].get("deletionTimestamp"):
        return False
    since = item["metadata"].get("annotations", {}).get(SEEN)
    if since is None:
        cluster.annotate(item, {SEEN: now.isoformat(timespec="seconds")})
        return False
    return now - datetime.fromisoformat(since) >= _SECOND_SIGHTING
