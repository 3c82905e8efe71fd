"""What can go wrong when talking to a cluster, in the project's own classes: the client's exceptions end at `k8s.transport`."""

from __future__ import annotations


class ClusterError(Exception):
    """Base. `reason` is Kubernetes' own word for it (e.g. AlreadyExists); `retryable` tells whether waiting may help."""

    retryable = False

    def __init__(self, message: str, *, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class Unreachable(ClusterError):
    """No answer: connection refused, reset, or timed out."""

    retryable = True


class Throttled(ClusterError):
    """429; `retry_after` in seconds when the server said."""

    retryable = True


class ServerFault(ClusterError):
    """500 and above."""

    retryable = True


class Expired(ClusterError):
    """410: the watch is too old; list again."""

    retryable = True


class Conflict(ClusterError):
    """409: changed meanwhile, or it exists already."""

    retryable = True


class Terminating(Conflict):
    """The object, or the namespace it is to be made in, is on its way out; it can be made again when that is gone."""


class Gone(ClusterError):
    """404."""


class Denied(ClusterError):
    """401 or 403, a ResourceQuota or Pod Security refusal included: the message says which."""


class Rejected(ClusterError):
    """400, 415 or 422: the cluster does not accept the object as it is."""


class Foreign(ClusterError):
    """An object of that name is there already and belongs to someone else; it is left alone."""
