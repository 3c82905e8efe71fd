"""HTTP addresses of the live room. Included under api/v1/ before the API's own, which do not know the streaming view."""

from __future__ import annotations

from django.urls import path

from .views import environment_logs

urlpatterns = [path("environments/<uuid:environment_id>/logs", environment_logs, name="environment-logs")]
