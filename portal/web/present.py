"""How things are shown: states and reasons in words, quantities in units people read, which actions make sense. No HTML, no writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import get_language, gettext_lazy, pgettext, pgettext_lazy
from django.utils.translation import gettext as _

from portal.domain.durations import parse_duration
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Environment, User
from portal.domain.params import in_order
from portal.domain.services.checks import DEFAULT_MAX_EXPIRY
from portal.domain.shape import parameters, scalable_param

Text = str | Promise


@dataclass(frozen=True, kw_only=True)
class StateLook:
    """`colour` is Tabler's name; `moving` is true while something is expected to change by itself."""

    title: Text
    colour: str
    moving: bool


STATES: dict[str, StateLook] = {
    State.REQUESTED: StateLook(title=pgettext_lazy("state", "requested"), colour="azure", moving=True),
    State.AWAITING_APPROVAL: StateLook(title=pgettext_lazy("state", "awaiting approval"), colour="yellow", moving=False),
    State.QUEUED: StateLook(title=pgettext_lazy("state", "queued"), colour="azure", moving=True),
    State.PROVISIONING: StateLook(title=pgettext_lazy("state", "provisioning"), colour="blue", moving=True),
    State.RUNNING: StateLook(title=pgettext_lazy("state", "running"), colour="green", moving=False),
    State.STOPPING: StateLook(title=pgettext_lazy("state", "stopping"), colour="orange", moving=True),
    State.STOPPED: StateLook(title=pgettext_lazy("state", "stopped"), colour="secondary", moving=False),
    State.DELETING: StateLook(title=pgettext_lazy("state", "deleting"), colour="orange", moving=True),
    State.DELETED: StateLook(title=pgettext_lazy("state", "deleted"), colour="secondary", moving=False),
    State.FAILED: StateLook(title=pgettext_lazy("state", "failed"), colour="red", moving=False),
    # replicas
    "pending": StateLook(title=pgettext_lazy("state", "pending"), colour="azure", moving=True),
    "starting": StateLook(title=pgettext_lazy("state", "starting"), colour="blue", moving=True),
    "succeeded": StateLook(title=pgettext_lazy("state", "succeeded"), colour="green", moving=False),
    "terminating": StateLook(title=pgettext_lazy("state", "terminating"), colour="orange", moving=True),
}

_UNKNOWN = StateLook(title=pgettext_lazy("state", "unknown"), colour="secondary", moving=False)


def look(state: str) -> StateLook:
    """How a state of an environment or of a replica is shown."""
    return STATES.get(state, _UNKNOWN)


def step_state(state: str) -> str:
    """State of one step, for those who cannot see its mark."""
    return {"done": _("done"), "active": _("in progress"), "failed": pgettext("state", "failed")}.get(state, _("waiting"))


# Status of an approval in words, and Tabler's colour for it.
APPROVALS: dict[str, tuple[Text, str]] = {
    "pending": (pgettext_lazy("approval", "waiting for an answer"), "yellow"),
    "approved": (pgettext_lazy("approval", "approved"), "green"),
    "refused": (pgettext_lazy("approval", "refused"), "red"),
    "lapsed": (pgettext_lazy("approval", "lapsed: nobody answered"), "secondary"),
    "withdrawn": (pgettext_lazy("approval", "withdrawn"), "secondary"),
}

NOTIFICATION_ICONS = {
    "ApprovalAsked": "checkbox",
    "Approved": "circle-check",
    "Refused": "circle-x",
    "ApprovalLapsed": "hourglass",
    "ExpirySoon": "clock",
    "Expired": "clock",
    "Completed": "circle-check",
    "IdleSoon": "zzz",
    "Idle": "zzz",
    "DeletionSoon": "trash",
    "StoppedTooLong": "trash",
    "PreemptionSoon": "bolt",
    "PreemptionOff": "circle-check",
    "ScheduleRefused": "calendar-time",
    "Preempted": "bolt",
    "Schedule": "calendar-time",
}

DAYS: tuple[Text, ...] = (
    pgettext_lazy("day", "Mon"),
    pgettext_lazy("day", "Tue"),
    pgettext_lazy("day", "Wed"),
    pgettext_lazy("day", "Thu"),
    pgettext_lazy("day", "Fri"),
    pgettext_lazy("day", "Sat"),
    pgettext_lazy("day", "Sun"),
)


def schedule_words(schedule: Mapping[str, Any]) -> str:
    """A schedule in a line: "Mon-Fri 09:00 to 20:00 (Asia/Shanghai)"."""
    if not schedule:
        return ""
    days = [int(day) for day in schedule.get("days") or () if 1 <= int(day) <= 7]
    runs = len(days) > 2 and days == list(range(days[0], days[-1] + 1))
    named = f"{DAYS[days[0] - 1]}–{DAYS[days[-1] - 1]}" if runs else ", ".join(str(DAYS[day - 1]) for day in days)
    start, stop, zone = schedule.get("start"), schedule.get("stop"), schedule.get("timezone") or ""
    if start and stop:
        return _("%(days)s from %(start)s to %(stop)s (%(zone)s)") % {"days": named, "start": start, "stop": stop, "zone": zone}
    if start:
        return _("%(days)s starts at %(start)s (%(zone)s)") % {"days": named, "start": start, "zone": zone}
    return _("%(days)s stops at %(stop)s (%(zone)s)") % {"days": named, "stop": stop, "zone": zone}


# What the one who reads it can do about a reason. Keys are the reason codes of the cluster and of the portal itself.
REMEDIES: dict[str, Text] = {
    "ErrImagePull": gettext_lazy("The image cannot be pulled. Ask an administrator to check the template's image, then retry."),
    "ImagePullBackOff": gettext_lazy("The image cannot be pulled. Ask an administrator to check the template's image, then retry."),
    "InvalidImageName": gettext_lazy("The template names an image that does not exist. Ask an administrator to correct it, then retry."),
    "CrashLoopBackOff": gettext_lazy("The program ends right after it starts. The logs below say why; correct it, then retry."),
    "Error": gettext_lazy("The program ended with an error. The logs below say why; correct it, then retry."),
    "OOMKilled": gettext_lazy("It used more memory than its flavor has. Launch it again with a larger flavor."),
    "FailedScheduling": gettext_lazy("No node has room for it now. It starts when one gets free; or delete it and choose a smaller flavor."),
    "Unschedulable": gettext_lazy("No node has room for it now. It starts when one gets free; or delete it and choose a smaller flavor."),
    "CommandFailed": gettext_lazy("The command ended with an error. The logs below say why; correct it, then retry."),
    "Completed": gettext_lazy("It has done its work; its logs are kept. Start it to run it again."),
    "Expired": gettext_lazy("Its time was up. Start it again to go on; files in the home volume are kept."),
    "Idle": gettext_lazy("Nobody used it. Start it again to go on; files in the home volume are kept."),
    "Preempted": gettext_lazy("One of higher priority needed its room. Start it again: it waits in the queue; files in the home volume are kept."),
    "Schedule": gettext_lazy("Its schedule stopped it. Start it again to go on, or change the schedule."),
    "Refused": gettext_lazy("Ask for something else, or retry it to ask again."),
    "ApprovalLapsed": gettext_lazy("Retry it to ask again."),
    "QuotaExceeded": gettext_lazy("Free something you no longer need, or ask who can change the limit."),
    "HubUnavailable": gettext_lazy("JupyterHub does not answer. It goes on by itself when the Hub is back."),
    "ClusterUnavailable": gettext_lazy("The cluster does not answer. It goes on by itself when the cluster is back."),
}


def remedy(reason: str, message: str = "") -> str:
    """What to do about `reason`; empty when nothing is known, or when the English `message`, which says it too, can be read."""
    if message and (get_language() or "en").startswith("en"):
        return ""
    return str(REMEDIES.get(reason, ""))


def localized(texts: Any) -> str:
    """The text in the language of the page from {"en": ..., "zh-hans": ...}; plain strings pass as they are."""
    if not isinstance(texts, Mapping):
        return "" if texts is None else str(texts)
    language = get_language() or "en"
    return str(texts.get(language) or texts.get(language.split("-")[0]) or texts.get("en") or next(iter(texts.values()), ""))


def shown_params(environment: Environment) -> list[tuple[str, str]]:
    """Titles and values of its parameters, but for the number of workers, which is shown by itself."""
    known, count = in_order(parameters(environment.template_spec)), scalable_param(environment.template_spec)
    names = [*(name for name in known if name in environment.params), *(name for name in environment.params if name not in known)]
    shown = [(localized(known.get(name, {}).get("title")) or name, _shown(environment.params[name], known.get(name, {}))) for name in names if name != count]
    return [(title, text) for title, text in shown if text]


def _shown(value: Any, rule: Mapping[str, Any]) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return "\n".join(str(item) for item in value)
    return localized((rule.get("titles") or {}).get(str(value))) or str(value)


def kind_title(kind: str) -> str:
    """Templates of one kind as a heading."""
    return {"notebook": _("Notebooks"), "cluster": _("Clusters")}.get(kind, kind)


FAMILIES = ("cpu", "gpu", "npu", "dcu", "mlu", "vpu", "tpu", "asic", "fpga")


def family_title(family: str) -> str:
    """A family of chips as a heading."""
    return _("Without accelerators") if family == "cpu" else family.upper()


def bytes_text(value: int) -> str:
    """Bytes in binary units: 512 MiB, 1.5 GiB."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def cores_text(millis: int) -> str:
    """Millicores as cores: 500 -> 0.5, 2000 -> 2."""
    return f"{millis / 1000:.3f}".rstrip("0").rstrip(".")


def scope_title(scope: str) -> str:
    """What a token scope allows."""
    titles = {
        "environments:read": _("Read the catalogue, quotas, and your environments with their events and logs"),
        "environments:write": _("Also request, change, stop and delete environments and kept volumes"),
        "tokens": _("List, make and revoke API tokens"),
    }
    return titles.get(scope, scope)


def resource_title(key: str) -> str:
    """Name of a quota resource."""
    names = {
        "environments": pgettext("resource", "Environments"),
        "cpu": pgettext("resource", "CPU cores"),
        "memory": pgettext("resource", "Memory"),
        "storage": pgettext("resource", "Storage"),
        "accelerators": pgettext("resource", "Accelerators, weighted"),
        "accelerator_seconds": pgettext("resource", "Accelerator-hours this month"),
    }
    return names.get(key) or key.removeprefix("accelerator:")


def amount(key: str, value: int | None) -> str:
    """A quota amount as people read it; None is "no limit"."""
    if value is None:
        return _("no limit")
    if key == "cpu":
        return cores_text(value)
    if key in {"memory", "storage"}:
        return bytes_text(value)
    if key == "accelerators":
        return cores_text(value)  # thousandths, as millicores are
    if key == "accelerator_seconds":
        return f"{value / 3600:.1f}".removesuffix(".0") + " h"
    return str(value)


@dataclass(frozen=True, kw_only=True)
class Actions:
    """What `user` may do with an environment in its present state. The services decide for good; this only hides what they would refuse."""

    open_lab: str = ""
    start: bool = False
    stop: bool = False
    retry: bool = False
    scale: bool = False
    extend: bool = False
    rename: bool = False
    schedule: bool = False
    delete: bool = False


def actions(environment: Environment, user: User, hub_url: str) -> Actions:
    """Actions to offer. `hub_url` is the Hub's public base address."""
    state, desired = State(environment.state), Desired(environment.desired)
    gone = desired is Desired.DELETED or state in {State.DELETING, State.DELETED}
    asked = state is State.AWAITING_APPROVAL  # what was asked for stays as it is until somebody answers
    path = str((environment.observed or {}).get("hub_url") or "")
    lab = ""
    if path.startswith("/") and state is State.RUNNING and desired is Desired.RUNNING and environment.owner_id == user.pk:
        lab = hub_url.rstrip("/") + path.rstrip("/") + "/lab"
    return Actions(
        open_lab=lab,
        start=not gone and state is State.STOPPED and desired is Desired.STOPPED,
        stop=not gone and desired is Desired.RUNNING and state is not State.FAILED,
        retry=not gone and state is State.FAILED,
        scale=not gone and not asked and environment.workers > 0 and state is not State.STOPPING and (desired is Desired.RUNNING or state is State.STOPPED),
        extend=not gone and not asked and environment.expires_in is not None and desired is Desired.RUNNING and state is not State.FAILED,
        rename=not gone and state is State.STOPPED,  # its name is part of its addresses
        schedule=not gone,
        delete=not gone,
    )


def replicas_of(environment: Environment, simulated_nodes: Collection[str]) -> list[dict[str, Any]]:
    """Its replicas as last observed, each marked when its node has no such hardware as it shows."""
    rows = (environment.observed or {}).get("replicas", [])
    return [{**row, "simulated": bool(row.get("simulated")) or row.get("node") in simulated_nodes} for row in rows]


_ORDER = ("environments", "cpu", "memory", "storage", "accelerators", "accelerator_seconds")


def resource_order(key: str) -> tuple[int, str]:
    """Sorts quota resources the same way everywhere; accelerators last, by name."""
    return (_ORDER.index(key) if key in _ORDER else len(_ORDER), key)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One limit as a bar. Widths in percent of the limit; `after` is the amount after a request, None when nothing is asked."""

    title: str
    used: str
    limit: str
    after: str | None
    used_percent: int
    added_percent: int
    limited: bool
    over: bool

    @property
    def colour(self) -> str:
        total = self.used_percent + self.added_percent
        return "red" if self.over else "yellow" if total >= 90 else "green"


def bar(key: str, limit: int | None, used: int, added: int = 0) -> Bar:
    """The bar of a limit with `used` of it taken and `added` more asked for."""

    def percent(value: int) -> int:
        if limit is None:
            return 0
        return min(100, round(100 * value / limit)) if limit else (100 if value else 0)

    before = percent(used)
    return Bar(
        title=resource_title(key),
        used=amount(key, used),
        limit=amount(key, limit),
        after=amount(key, used + added) if added else None,
        used_percent=before,
        added_percent=min(100 - before, percent(added)),
        limited=limit is not None,
        over=limit is not None and used + added > limit,
    )


def longest_expiry(template_spec: Mapping[str, Any]) -> timedelta:
    """The longest running time that may be asked for at once."""
    text = template_spec.get("max_expires_in")
    return parse_duration(str(text)) if text else DEFAULT_MAX_EXPIRY
