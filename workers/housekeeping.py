"""What no single environment does for itself: volumes to purge."""

from __future__ import annotations

import logging

from k8s import names
from k8s.cluster import Cluster
from portal.domain import selectors, services
from portal.domain.models import Team

from .actions import claim_gone

logger = logging.getLogger(__name__)


def volumes_purge(cluster: Cluster, team: Team | None = None) -> None:
    """Delete the claims of volumes to be purged; their rows and the storage they hold go when the claims are gone. Raises `k8s.errors`."""
    for volume in selectors.volumes_to_purge(team):
        if claim_gone(cluster, names.namespace(volume.team.slug), volume.claim):
            services.volume_forget(volume.pk)
            logger.info("volume purged: volume=%s", volume.pk)
