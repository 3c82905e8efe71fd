"""Every visibility-checked read, and what the workers look for. A room per subject; callers use the names from here."""

from .approvals import approvals_decidable_by, approvals_visible_to, approvers_for, approvers_of
from .capacity import (
    AcceleratorCapacity,
    FlavorCapacity,
    accelerators_with_capacity,
    flavors_of,
    flavors_with_capacity,
    starts_now,
    templates_enabled,
    why_never_fits,
)
from .due import due, environments_due, environments_expired, volumes_to_purge
from .environments import archive_read, archives_of, clusters_of, environment_get, environments_visible_to, events_after
from .notifications import notifications_of
from .picture import nearness_of, need_of
from .queue import QueueEntry, queue_needs_a_look, queue_of
from .storages import (
    StorageUse,
    artifact_editable_by,
    artifact_get,
    artifacts_search,
    artifacts_visible_to,
    environments_mounting,
    mountable,
    references,
    storage_access,
    storages_usable_by,
    team_claims,
    teams_using,
    templates_serving,
    version_find,
    versions_of,
    versions_visible_to,
)
from .teams import leads_of, platform_admins, quota_rows, teams_led_by, volumes_visible_to
from .timed import environments_with_idle_rule
from .usage import UsageRow, usage_report, usage_visible_to
from .versions import Redirects, next_version, redirects

__all__ = [
    "AcceleratorCapacity",
    "FlavorCapacity",
    "QueueEntry",
    "Redirects",
    "StorageUse",
    "UsageRow",
    "accelerators_with_capacity",
    "approvals_decidable_by",
    "approvals_visible_to",
    "approvers_for",
    "approvers_of",
    "archive_read",
    "archives_of",
    "artifact_editable_by",
    "artifact_get",
    "artifacts_search",
    "artifacts_visible_to",
    "clusters_of",
    "due",
    "environment_get",
    "environments_due",
    "environments_expired",
    "environments_mounting",
    "environments_visible_to",
    "environments_with_idle_rule",
    "events_after",
    "flavors_of",
    "flavors_with_capacity",
    "leads_of",
    "mountable",
    "nearness_of",
    "need_of",
    "next_version",
    "notifications_of",
    "platform_admins",
    "queue_needs_a_look",
    "queue_of",
    "quota_rows",
    "redirects",
    "references",
    "starts_now",
    "storage_access",
    "storages_usable_by",
    "team_claims",
    "teams_led_by",
    "teams_using",
    "templates_enabled",
    "templates_serving",
    "usage_report",
    "usage_visible_to",
    "version_find",
    "versions_of",
    "versions_visible_to",
    "volumes_to_purge",
    "volumes_visible_to",
    "why_never_fits",
]
