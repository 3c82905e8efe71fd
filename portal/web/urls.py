"""Addresses of the pages."""

from __future__ import annotations

from django.urls import path

from .views import account, approvals, capacity, data, environment_time, environments, launch, notifications, queue, quotas, tokens, usage

urlpatterns = [
    path("", environments.index, name="environments"),
    path("environments/<uuid:environment_id>/", environments.detail, name="environment"),
    path("environments/<uuid:environment_id>/start", environments.start, name="environment_start"),
    path("environments/<uuid:environment_id>/stop", environments.stop, name="environment_stop"),
    path("environments/<uuid:environment_id>/retry", environments.retry, name="environment_retry"),
    path("environments/<uuid:environment_id>/scale", environments.scale, name="environment_scale"),
    path("environments/<uuid:environment_id>/extend", environments.extend, name="environment_extend"),
    path("environments/<uuid:environment_id>/rename", environments.rename, name="environment_rename"),
    path("environments/<uuid:environment_id>/delete", environments.delete, name="environment_delete"),
    path("environments/<uuid:environment_id>/keep", environment_time.keep, name="environment_keep"),
    path("environments/<uuid:environment_id>/in-use", environment_time.in_use, name="environment_in_use"),
    path("environments/<uuid:environment_id>/schedule", environment_time.schedule, name="environment_schedule"),
    path("environments/<uuid:environment_id>/autoscale", environment_time.autoscale, name="environment_autoscale"),
    path("environments/<uuid:environment_id>/register", data.register, name="environment_register"),
    path("volumes/<uuid:volume_id>/purge", environments.purge, name="volume_purge"),
    path("data/", data.index, name="data"),
    path("data/<slug:kind>/new", data.new, name="artifact_new"),
    path("data/<slug:kind>/<str:name>/", data.detail, name="artifact"),
    path("data/<slug:kind>/<str:name>/change", data.change, name="artifact_change"),
    path("data/<slug:kind>/<str:name>/delete", data.delete, name="artifact_delete"),
    path("data/<slug:kind>/<str:name>/versions/<int:number>/delete", data.version_delete, name="artifact_version_delete"),
    path("launch/", launch.choose, name="launch"),
    path("launch/<slug:template>/", launch.form, name="launch_template"),
    path("launch/<slug:template>/preview", launch.preview, name="launch_preview"),
    path("tokens/", tokens.index, name="tokens"),
    path("tokens/<uuid:token_id>/revoke", tokens.revoke, name="token_revoke"),
    path("capacity/", capacity.index, name="capacity"),
    path("quotas/", quotas.index, name="quotas"),
    path("usage/", usage.index, name="usage"),
    path("queue/", queue.index, name="queue"),
    path("approvals/", approvals.index, name="approvals"),
    path("approvals/<int:approval_id>/", approvals.detail, name="approval"),
    path("approvals/<int:approval_id>/decide", approvals.decide, name="approval_decide"),
    path("notifications/", notifications.index, name="notifications"),
    path("notifications/bell", notifications.bell, name="notifications_bell"),
    path("notifications/read", notifications.read, name="notifications_read"),
    path("settings/", account.settings, name="settings"),
]
