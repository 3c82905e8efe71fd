"""What went wrong, in words; on the row, and in how long until the next try."""

from __future__ import annotations

import random

from k8s import errors
from portal.domain import services
from portal.domain.models import Environment

from . import hub
from .hub import HubError
from .operators import OperatorMissing

# The most that a back-off grows to, in seconds. What may mend itself (a cluster or Hub that is away) is noticed within this and a sweep.
PASSING, LASTING = 10.0, 60.0


def explain(error: Exception) -> tuple[str, str]:
    """(code, words with what happens next) of an error."""
    if isinstance(error, errors.Unreachable):
        return "ClusterUnreachable", "The cluster's API does not answer; it is tried again until it does."
    if isinstance(error, errors.Terminating):
        return "Terminating", f"The cluster is still removing what was there before: {error}. It is made again when that is gone; ask an admin if this stays."
    if isinstance(error, errors.Foreign):
        return "NameTaken", f"{error}. Ask an admin to remove it, or request the environment under another name."
    if isinstance(error, errors.Denied):
        return "ClusterDenied", f"The cluster refuses it: {error}. Ask an admin; then retry."
    if isinstance(error, errors.Rejected):
        return "ClusterRejected", f"The cluster does not accept it: {error}. Ask an admin to correct the template; then retry."
    if isinstance(error, errors.ClusterError):
        return "ClusterBusy", f"The cluster cannot do it now: {error}. It is tried again."
    if isinstance(error, hub.HubUnreachable):
        return "HubUnreachable", f"{error}. It is tried again until it works."
    if isinstance(error, HubError):
        return "HubRefused", f"JupyterHub refuses it: {error}. Ask an admin; then retry."
    if isinstance(error, OperatorMissing):
        return "OperatorMissing", str(error)
    return "TemplateInvalid", f"{error} Ask an admin to correct the template."


def note(environment: Environment, reason: str, message: str) -> None:
    """Show trouble on the row; in the history only when it begins."""
    current = Environment.objects.values("observed", "reason").get(pk=environment.pk)
    if current["reason"] != reason and environment.attempts == 0:
        services.event_record(environment.pk, "warning", reason, message)
    services.environment_observe(environment.pk, current["observed"], reason=reason, message=message)


def backoff(environment: Environment, most: float) -> float:
    """1, 2, 4... to `most` seconds, with jitter, by the number of tries that failed."""
    return jittered(min(most, 2.0 ** min(environment.attempts, 6)))


def jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)
