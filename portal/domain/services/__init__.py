"""Every write, one function per verb, keyword-only, each a transaction. HTML, API, commands and tasks all call these."""

from .admission import Forecast, forecast, priority_for, queue_admit, queue_pass, queue_return
from .approvals import approval_grant, approval_refuse
from .artifacts import artifact_create, artifact_delete, artifact_update, artifact_version_add, artifact_version_delete
from .autoscale import environment_autoscale, environment_autoscale_set
from .environments import (
    environment_delete,
    environment_extend,
    environment_keep,
    environment_rename,
    environment_retry,
    environment_scale,
    environment_schedule,
    environment_start,
    environment_stop,
    volume_purge,
)
from .exceptions import check_capability, exception_grant, exception_revoke
from .expiry import environment_complete, environment_expire
from .handover import operator_chosen, queue_hand_over, queue_told
from .idleness import activity_record, environment_in_use
from .ledger import QuotaEffect
from .notifications import notifications_read, notify
from .observer import (
    archive_store,
    environment_move,
    environment_observe,
    event_record,
    lease_release,
    lease_renew,
    lease_take,
    nodes_observed,
    volume_forget,
)
from .preferences import check_timezone, preferences_set
from .quota import Drift, check_quota, quota_recompute, quota_rows_ensure, quota_set, quota_turn
from .requests import Preview, environment_preview, environment_request
from .storages import (
    storage_changed,
    storage_grant_remove,
    storage_grant_set,
    storage_secret_clear,
    storage_secret_set,
    storage_secrets,
    team_claim_forget,
    team_claim_purge,
)
from .sweep import environments_claim
from .teams import check_team_slug, membership_remove, membership_set, team_create, user_deactivate
from .templates import template_faults, template_redirect, template_store
from .timers import timers_run
from .tokens import token_create, token_revoke

__all__ = [
    "Drift",
    "Forecast",
    "Preview",
    "QuotaEffect",
    "activity_record",
    "approval_grant",
    "approval_refuse",
    "archive_store",
    "artifact_create",
    "artifact_delete",
    "artifact_update",
    "artifact_version_add",
    "artifact_version_delete",
    "check_capability",
    "check_quota",
    "check_team_slug",
    "check_timezone",
    "environment_autoscale",
    "environment_autoscale_set",
    "environment_complete",
    "environment_delete",
    "environment_expire",
    "environment_extend",
    "environment_in_use",
    "environment_keep",
    "environment_move",
    "environment_observe",
    "environment_preview",
    "environment_rename",
    "environment_request",
    "environment_retry",
    "environment_scale",
    "environment_schedule",
    "environment_start",
    "environment_stop",
    "environments_claim",
    "event_record",
    "exception_grant",
    "exception_revoke",
    "forecast",
    "lease_release",
    "lease_renew",
    "lease_take",
    "membership_remove",
    "membership_set",
    "nodes_observed",
    "notifications_read",
    "notify",
    "operator_chosen",
    "preferences_set",
    "priority_for",
    "queue_admit",
    "queue_hand_over",
    "queue_pass",
    "queue_return",
    "queue_told",
    "quota_recompute",
    "quota_rows_ensure",
    "quota_set",
    "quota_turn",
    "storage_changed",
    "storage_grant_remove",
    "storage_grant_set",
    "storage_secret_clear",
    "storage_secret_set",
    "storage_secrets",
    "team_claim_forget",
    "team_claim_purge",
    "team_create",
    "template_faults",
    "template_redirect",
    "template_store",
    "timers_run",
    "token_create",
    "token_revoke",
    "user_deactivate",
    "volume_forget",
    "volume_purge",
]
