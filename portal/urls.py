"""Every address of the portal."""

from django.contrib import admin
from django.urls import include, path

from .api import health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    path("admin/", admin.site.urls),
    path("accounts/", include("portal.identity.urls")),
    path("o/", include("portal.identity.provider_urls")),
    path("api/v1/", include("portal.live.urls")),
    path("api/v1/", include("portal.api.urls")),
    path("", include("portal.web.urls")),
]
