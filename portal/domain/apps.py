"""The one app with models."""

from django.apps import AppConfig


class DomainConfig(AppConfig):
    name = "portal.domain"
    label = "domain"
    default_auto_field = "django.db.models.BigAutoField"
