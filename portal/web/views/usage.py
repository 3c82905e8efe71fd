"""Usage: hours that were held, by user, team, accelerator or template, over a period; as a table and as CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from portal.domain import selectors
from portal.domain.models import Accelerator, Team, Template

from ..http import page, signed_in
from ..present import localized

GROUPS = ("user", "team", "accelerator", "template")


@dataclass(frozen=True, kw_only=True)
class Period:
    """From the beginning of `first` to the end of `last`, in the time zone of the page."""

    first: date
    last: date

    @property
    def since(self) -> datetime:
        return timezone.make_aware(datetime.combine(self.first, time()))

    @property
    def until(self) -> datetime:
        return timezone.make_aware(datetime.combine(self.last + timedelta(days=1), time()))


def period_of(request: HttpRequest) -> tuple[Period, str]:
    """The period asked for, this month when none is, and what is wrong with it if anything."""
    today = timezone.localdate()
    default = Period(first=today.replace(day=1), last=today)
    first, last = _date(request.GET.get("from", ""), default.first), _date(request.GET.get("to", ""), default.last)
    if first is None or last is None:
        return default, _("A day is written as 2026-11-30. This month is shown.")
    if last < first:
        return default, _("The period ends before it begins. This month is shown.")
    return Period(first=first, last=last), ""


def _date(text: str, default: date) -> date | None:
    if not text:
        return default
    try:
        found = parse_date(text)
    except ValueError:
        return None
    return found if found and 2000 <= found.year <= 9000 else None


@require_GET
@page
def index(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    group_by = request.GET.get("group_by", "user")
    if group_by not in GROUPS:
        group_by = "user"
    period, wrong = period_of(request)
    rows = selectors.usage_report(user, period.since, period.until, group_by)
    if request.GET.get("format") == "csv":
        return _csv(rows, group_by, period)
    titles = _titles(group_by)
    most = max((row.weighted_hours for row in rows), default=0)
    shown: list[dict[str, Any]] = [
        {
            "row": row,
            "title": titles.get(row.key) or row.key or _("none"),
            "cpu": float(row.cpu_hours),
            "memory": float(row.memory_hours),
            "devices": float(row.accelerator_hours),
            "weighted": float(row.weighted_hours),
            "percent": round(100 * row.weighted_hours / most) if most else 0,
        }
        for row in rows
    ]
    context = {
        "section": "usage",
        "rows": shown,
        "sums": {name: sum(row[name] for row in shown) for name in ("cpu", "memory", "devices", "weighted")},
        "group_by": group_by,
        "groups": [(key, title, _query(period, key)) for key, title in _group_titles()],
        "period": period,
        "periods": _periods(group_by, period),
        "csv_query": _query(period, group_by) + "&format=csv",
        "wrong": wrong,
    }
    return render(request, "web/usage.html", context)


def _query(period: Period, group_by: str) -> str:
    return urlencode({"from": period.first.isoformat(), "to": period.last.isoformat(), "group_by": group_by})


def _group_titles() -> list[tuple[str, str]]:
    return [("user", _("By user")), ("team", _("By team")), ("accelerator", _("By accelerator")), ("template", _("By template"))]


def _periods(group_by: str, current: Period) -> list[dict[str, Any]]:
    today = timezone.localdate()
    month = today.replace(day=1)
    before = (month - timedelta(days=1)).replace(day=1)
    choices = [
        (_("This month"), Period(first=month, last=today)),
        (_("Last month"), Period(first=before, last=month - timedelta(days=1))),
        (_("7 days"), Period(first=today - timedelta(days=6), last=today)),
        (_("30 days"), Period(first=today - timedelta(days=29), last=today)),
    ]
    return [{"title": title, "query": _query(period, group_by), "active": period == current} for title, period in choices]


def _titles(group_by: str) -> dict[str, str]:
    """Names of the keys where they have some."""
    if group_by == "team":
        return dict(Team.objects.values_list("slug", "name"))
    if group_by == "accelerator":
        return {slug: localized(title) for slug, title in Accelerator.objects.values_list("slug", "title")}
    if group_by == "template":
        return {slug: localized(title) for slug, title in Template.objects.values_list("slug", "title")}
    return {}


def _csv(rows: list[selectors.UsageRow], group_by: str, period: Period) -> HttpResponse:
    """The same rows with slugs for keys: for spreadsheets and programs, so in one language."""
    name = f"atelier-usage-{group_by}-{period.first}-{period.last}.csv"
    response = HttpResponse(content_type="text/csv; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="{name}"'})
    out = csv.writer(response)
    out.writerow([group_by, "environments", "accelerator_hours", "weighted_accelerator_hours", "cpu_hours", "memory_gib_hours"])
    for row in rows:
        hours = (row.accelerator_hours, row.weighted_hours, row.cpu_hours, row.memory_hours)
        # a name that a spreadsheet would take for a formula gets an apostrophe, as spreadsheets do themselves
        out.writerow([f"'{row.key}" if row.key[:1] in "=+-@\t" and row.key else row.key, row.environments, *(f"{float(value):.4f}" for value in hours)])
    return response
