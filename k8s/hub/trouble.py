"""Reading a pod that is starting: is it up, is it still on its way, or will it never be? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .order import CONTAINER

Pod = Mapping[str, Any]

# Nothing that happens later makes these go away.
HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "ImageInspectError", "CrashLoopBackOff"})
# A registry that is slow or restarts gives these too, so they count only after GRACE_SECONDS.
DOUBTFUL = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "RunContainerError", "PostStartHookError"})
GRACE_SECONDS = 12.0
DELETED = "The pod was deleted while it was starting."


def address(pod: Pod | None) -> str:
    """The pod's address once its notebook container runs; empty before that."""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return ""
    state = _notebook(pod).get("state") or {}
    return str(pod["status"].get("podIP") or "") if "running" in state else ""


def ended(pod: Pod) -> int | None:
    """The exit code of the notebook container when it will not run again; None while it runs or may still start."""
    status = pod["status"]
    finished = status.get("phase") in ("Succeeded", "Failed")
    terminated = (_notebook(pod).get("state") or {}).get("terminated")
    if terminated and (finished or pod["spec"].get("restartPolicy") == "Never"):
        return int(terminated.get("exitCode", 1))
    return 1 if finished else None


def failure(pod: Pod) -> tuple[str, bool] | None:
    """Why the pod will not come up, in words, and whether that is certain; None when nothing is wrong.

    An uncertain failure counts once it has lasted GRACE_SECONDS. A pod that waits for room on a node has not failed.
    """
    status = pod["status"]
    if "deletionTimestamp" in pod["metadata"]:
        return DELETED, True
    if status.get("phase") == "Failed" and status.get("reason"):
        return _words(status["reason"], status.get("message")), True
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state") or {}
        if waiting := state.get("waiting"):
            reason = waiting.get("reason", "")
            if reason in HOPELESS or reason in DOUBTFUL:
                return _words(reason, waiting.get("message"), container), reason in HOPELESS
        terminated = state.get("terminated")
        if terminated and (container["name"] == CONTAINER or terminated.get("exitCode")):
            return _exit(container["name"], terminated), True
    if status.get("phase") in ("Failed", "Succeeded"):
        return "The pod ended before the notebook answered.", True
    return None


def _notebook(pod: Pod) -> Mapping[str, Any]:
    return next((each for each in pod["status"].get("containerStatuses") or [] if each["name"] == CONTAINER), {})


def _words(reason: str, message: str | None, container: Mapping[str, Any] | None = None) -> str:
    image = f" (image {container['image']})" if container and container.get("image") and "Image" in reason else ""
    return f"{reason}{image}: {message or 'no further message'}"


def _exit(name: str, terminated: Mapping[str, Any]) -> str:
    reason = terminated.get("reason") or "Error"
    words = f"{reason}: container {name!r} ended with exit code {terminated.get('exitCode', 'unknown')} before the notebook answered"
    message = (terminated.get("message") or "").strip()
    return f"{words}: {message[-500:]}" if message else f"{words}."
