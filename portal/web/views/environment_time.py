"""What an environment does by itself: its schedule, keeping it from deletion, telling that it is in use."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from portal.domain import selectors, services
from portal.domain.models import User

from ..forms import ScheduleForm
from ..http import page, signed_in
from .environments import act, act_with


@require_POST
@page
def keep(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """It is not deleted by itself."""
    return act(request, environment_id, lambda user: services.environment_keep(actor=user, environment_id=environment_id), _("It is kept."))


@require_POST
@page
def in_use(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Somebody says that it is in use, though nothing shows it."""
    said = _("It goes on: the time without use begins anew.")
    return act(request, environment_id, lambda user: services.environment_in_use(actor=user, environment_id=environment_id), said)


@require_POST
@page
def schedule(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Set its schedule; without any time, or by the button for it, there is none any more."""
    user = signed_in(request)
    environment = selectors.environment_get(user, environment_id)
    remove = request.POST.get("remove") is not None
    form = ScheduleForm({} if remove else request.POST, own_zone=user.timezone, current=environment.schedule)

    def verb(user: User) -> object:
        return services.environment_schedule(actor=user, environment_id=environment_id, schedule=None if remove else form.schedule())

    return act_with(form, request, environment_id, verb, _("It has no schedule any more.") if remove else _("Its schedule is set."))


@require_POST
@page
def autoscale(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Let its template's rule choose the number of workers, or not any more."""
    on = request.POST.get("on") == "true"
    said = _("It is scaled by its use.") if on else _("It is scaled by hand only.")
    return act(request, environment_id, lambda user: services.environment_autoscale_set(actor=user, environment_id=environment_id, on=on), said)
