"""What is wrong with one pod, StatefulSet or claim: Kubernetes' many ways of saying so, turned into a code, words and a remedy. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]

PATIENCE_RESTARTS = 3  # restarts of a container that had been ready before its environment is given up
_SETTLE_SECONDS = 15.0  # quota of pods that are still ending, a missing StorageClass: may mend themselves within this time

_ASK_ADMIN = "Ask an admin to correct the template."
_ASK_STORAGE = "Ask an admin to check the storage class."
_READ_LOG = "Read the log of this replica, then retry."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong. `fatal`: waiting will not help. `step`: key of the step it belongs to."""

    code: str
    message: str
    step: str
    remedy: str = ""
    fatal: bool = False
    restarts: int = 0

    @property
    def text(self) -> str:
        return f"{self.message} {self.remedy}".strip()


# --- pods --------------------------------------------------------------------


def is_ready(pod: Object) -> bool:
    """True when the pod's Ready condition holds and nobody has deleted it."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(item["type"] == "Ready" and item["status"] == "True" for item in pod.get("status", {}).get("conditions", ()))


def replica_state(pod: Object) -> str:
    """pending, starting, running, succeeded, failed or terminating."""
    phase = pod.get("status", {}).get("phase", "Pending")
    if pod["metadata"].get("deletionTimestamp"):
        return "terminating"
    if phase in ("Succeeded", "Failed"):
        return str(phase).lower()
    if phase == "Pending" and not pod["spec"].get("nodeName"):
        return "pending"
    return "running" if is_ready(pod) else "starting"


def has_started(container: Object) -> bool:
    """True when a container runs or has run."""
    state = container.get("state", {})
    return "running" in state or "terminated" in state or bool(container.get("lastState", {}).get("terminated"))


def all_containers(status: Object, test: Callable[[Object], bool]) -> bool:
    """True when there are containers and each passes."""
    containers = status.get("containerStatuses", ())
    return bool(containers) and all(test(container) for container in containers)


def pod_finding(pod: Object) -> Finding | None:
    """The gravest thing wrong with a pod, or None. Pods that are being deleted are no longer judged."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    found = [finding for container in containers if (finding := _container_finding(pod, container))]
    if found:
        return min(found, key=lambda finding: not finding.fatal)
    name = pod["metadata"]["name"]
    if status.get("phase") == "Failed":
        reason = status.get("reason") or "PodFailed"
        return Finding(code=reason, step="start", fatal=True, message=f"{name}: {status.get('message') or reason}.", remedy="Retry.")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unscheduled(pod, condition)
    return None


def _unscheduled(pod: Object, condition: Object) -> Finding:
    if condition.get("reason") == "SchedulingGated":
        return Finding(code="SchedulingGated", step="queue", message="Waiting for the cluster's queue to admit it.")
    role = pod["spec"]["containers"][0]
    requests = role.get("resources", {}).get("requests", {})
    wants = ", ".join(f"{amount} {key}" for key, amount in requests.items() if "/" in key)
    said = condition.get("message", "").strip()
    what = f"No node has {wants} free" if wants and any(key in said for key in requests if "/" in key) else "No node has room now"
    return Finding(
        code="Unschedulable",
        step="pod",
        message=f"{what} for {pod['metadata']['name']}; it starts when one has. The scheduler says: {said or 'nothing more'}",
        remedy="Wait, or delete it and choose a smaller flavor.",
    )


# Waiting reasons that are failures: code -> (step, what happened, remedy)
_IMAGE = ("image", "image {image} cannot be pulled", f"Check the image's name and that the nodes may pull it. {_ASK_ADMIN}")
_CREATE = ("start", "the container cannot be created", _ASK_ADMIN)
_WAITING: dict[str, tuple[str, str, str]] = {
    "ImagePullBackOff": _IMAGE,
    "ErrImagePull": _IMAGE,
    "InvalidImageName": ("image", "{image} is not an image name", _ASK_ADMIN),
    "ErrImageNeverPull": _IMAGE,
    "ImageInspectError": _IMAGE,
    "SignatureValidationFailed": _IMAGE,
    "CreateContainerConfigError": _CREATE,
    "CreateContainerError": _CREATE,
    "RunContainerError": ("start", "the command cannot be run", _ASK_ADMIN),
    "StartError": ("start", "the command cannot be run", _ASK_ADMIN),
}
# The kubelet's own caches and a registry's hiccup pass by themselves; these words do not.
_TRANSIENT = re.compile(r"failed to sync \w+ cache|timed out|timeout|connection refused|too many requests|temporarily", re.IGNORECASE)


def _container_finding(pod: Object, container: Object) -> Finding | None:
    waiting = container.get("state", {}).get("waiting")
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    restarts = container.get("restartCount", 0)
    where = f"{pod['metadata']['name']}, container {container['name']}"
    if waiting and waiting.get("reason") in _WAITING:
        code = waiting["reason"]
        step, what, remedy = _WAITING[code]
        said = waiting.get("message", "")
        # A registry that merely hesitates is tried again by the kubelet, which then says ImagePullBackOff.
        fatal = not (_TRANSIENT.search(said) and code in ("ErrImagePull", "CreateContainerConfigError", "CreateContainerError"))
        text = f"{where}: {what.format(image=container.get('image', ''))}" + (f": {_shorten(said)}" if said else "") + "."
        return Finding(code=code, step=step, fatal=fatal, message=text, remedy=remedy)
    if not ended or (container.get("state", {}).get("running") and restarts < 1):
        return None
    if container.get("state", {}).get("running") and container.get("ready"):
        return None
    return _ended(pod, where, container["name"], ended, restarts, looping=bool(waiting) and waiting.get("reason") == "CrashLoopBackOff")


def _ended(pod: Object, where: str, container: str, ended: Object, restarts: int, *, looping: bool) -> Finding | None:
    """A container that ended: for good, again and again, or just once."""
    reason, exit_code = ended.get("reason", "Error"), ended.get("exitCode", 0)
    final = pod["spec"].get("restartPolicy", "Always") == "Never"
    if exit_code == 0 and reason == "Completed" and final and pod.get("status", {}).get("phase") != "Succeeded":
        return None  # an init container that did its work
    fatal = final or looping or restarts >= 2 or reason in ("StartError", "ContainerCannotRun")
    times = f" for the {restarts + 1}th time" if restarts >= 3 else {1: " twice", 2: " three times"}.get(restarts, "")
    if looping and not restarts:
        times = ""
    said = _shorten(ended.get("message", ""))
    tail = f" It said: {said}" if said else ""
    if reason == "OOMKilled":
        limit = next((c.get("resources", {}).get("limits", {}).get("memory", "") for c in pod["spec"]["containers"] if c["name"] == container), "")
        message = f"{where}: ran out of memory{times}{f' (limit {_mebibytes(limit)})' if limit else ''} and was killed."
        return Finding(code="OOMKilled", step="start", fatal=fatal, restarts=restarts, message=message, remedy="Choose a flavor with more memory.")
    if reason in ("StartError", "ContainerCannotRun"):
        return Finding(code="StartError", step="start", fatal=True, restarts=restarts, message=f"{where}: the command cannot be run.{tail}", remedy=_ASK_ADMIN)
    signal = f" (signal {exit_code - 128})" if 128 < exit_code < 160 else ""
    message = f"{where}: ended with exit code {exit_code}{signal}{times}.{tail}"
    return Finding(code="ContainerExited", step="start", fatal=fatal, restarts=restarts, message=message, remedy=_READ_LOG)


# --- what events tell --------------------------------------------------------


def create_finding(item: Object, events: Sequence[Object], *, pods: int, now: datetime) -> Finding | None:
    """Why a StatefulSet's controller cannot make its pods, from its FailedCreate events; None while nothing is missing."""
    if pods >= item["spec"].get("replicas", 1):
        return None
    newest = _newest(events, item, "FailedCreate")
    if newest is None:
        return None
    said = newest.get("message", "")
    age = (now - _time(item["metadata"].get("creationTimestamp"), now)).total_seconds()
    words = _shorten(re.sub(r"^create Pod \S+ in StatefulSet \S+ failed error: ", "", said))
    if "violates PodSecurity" in said:
        return Finding(code="PodSecurity", step="pod", fatal=True, message=f"The cluster's Pod Security refuses the pod: {words}.", remedy=_ASK_ADMIN)
    if "exceeded quota" in said:
        return Finding(
            code="ClusterQuota",
            step="quota",
            fatal=age > _SETTLE_SECONDS,  # pods of an environment that is just ending still count
            message=f"The namespace's quota is used up: {words}.",
            remedy="Stop something of this team, or ask an admin to raise the quota.",
        )
    if "serviceaccount" in said and "not found" in said:
        return None  # a namespace this young gets its service account in a moment
    fatal = "is forbidden" in said or "is invalid" in said
    return Finding(code="FailedCreate", step="pod", fatal=fatal and age > _SETTLE_SECONDS, message=f"The pod cannot be made: {words}.", remedy=_ASK_ADMIN)


def claim_finding(claim: Object, events: Sequence[Object], *, now: datetime) -> Finding | None:
    """Why a home volume is not bound, from its ProvisioningFailed events."""
    if claim.get("status", {}).get("phase") == "Bound":
        return None
    newest = _newest(events, claim, "ProvisioningFailed")
    if newest is None:
        return None
    said = _shorten(newest.get("message", ""))
    age = (now - _time(claim["metadata"].get("creationTimestamp"), now)).total_seconds()
    fatal = "not found" in said and age > _SETTLE_SECONDS
    return Finding(code="VolumeFailed", step="volume", fatal=fatal, message=f"The home volume cannot be made: {said}.", remedy=_ASK_STORAGE)


def mount_finding(pod: Object, events: Sequence[Object]) -> Finding | None:
    """A volume or sandbox that the node cannot set up; the node keeps trying, so this is never fatal."""
    if any(has_started(container) for container in pod.get("status", {}).get("containerStatuses", ())):
        return None
    for reason, step in (("FailedMount", "volume"), ("FailedAttachVolume", "volume"), ("FailedCreatePodSandBox", "network")):
        if newest := _newest(events, pod, reason):
            return Finding(
                code=reason, step=step, message=f"{pod['metadata']['name']}: {_shorten(newest.get('message', ''))}.", remedy="The node keeps trying."
            )
    return None


def _newest(events: Sequence[Object], item: Object, reason: str) -> Object | None:
    own = [event for event in events if event.get("reason") == reason and event.get("involvedObject", {}).get("uid") == item["metadata"]["uid"]]
    return max(own, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default=None)


def _time(text: str | None, default: datetime) -> datetime:
    return datetime.fromisoformat(text) if text else default


def _shorten(text: str, limit: int = 400) -> str:
    """One line of at most `limit` characters, without control characters: it goes into pages, logs and events."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split()).rstrip(".")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _mebibytes(quantity: str) -> str:
    return f"{int(quantity) // 2**20} MiB" if quantity.isdigit() else quantity
