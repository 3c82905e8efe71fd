"""What the views share: sign-in, refusals of the domain as pages and messages, fragments for htmx."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from functools import wraps
from typing import Any, cast
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.views.decorators.cache import never_cache

from portal.domain.errors import DomainError, Forbidden, NotFound
from portal.domain.models import User

from .phrases import known

View = Callable[..., HttpResponse]


def page(view: View) -> View:
    """A page of someone who is signed in. What is absent and what is not theirs look the same: 404."""

    @never_cache
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            if is_refresh(request):
                # a live page whose session ended: load it as a whole, which leads to the sign-in page
                return HttpResponse(status=204, headers={"HX-Refresh": "true"})
            return redirect_to_login(request.get_full_path())
        try:
            with timezone.override(zone_of(request)):
                response = view(request, *args, **kwargs)
        except NotFound as error:
            raise Http404(error.detail) from error
        except Forbidden as error:
            raise PermissionDenied(error.detail) from error
        patch_vary_headers(response, ["HX-Request"])  # the same address answers with a page or with a fragment of it
        return response

    return guarded


def zone_of(request: HttpRequest) -> tzinfo:
    """The time zone of the one who looks, or the installation's. A name that the zone database has lost counts as none."""
    name = signed_in(request).timezone
    try:
        return ZoneInfo(name) if name else timezone.get_default_timezone()
    except (ValueError, LookupError, OSError):
        return timezone.get_default_timezone()


def signed_in(request: HttpRequest) -> User:
    """The user behind a guarded view."""
    return cast(User, request.user)


def is_refresh(request: HttpRequest) -> bool:
    """True when htmx asks for the live part of a page only."""
    return bool(getattr(request, "htmx", False))


def complain(request: HttpRequest, error: DomainError) -> None:
    """Show a refusal above the next page, with the words of each field it names."""
    lines = [message for field_messages in error.errors.values() for message in field_messages]
    messages.error(request, "\n".join(dict.fromkeys(map(known, lines))) or known(error.detail))
