from django.apps import AppConfig


class IdentityConfig(AppConfig):
    name = "portal.identity"

    def ready(self) -> None:
        from allauth.account.decorators import secure_admin_login
        from django.contrib import admin

        from . import signals  # noqa: F401 - connects the receivers

        # The admin's own sign-in form knows no limit on failed attempts; this sends people to ours.
        admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
