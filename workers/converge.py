"""Brings one environment from where it is towards what its owner wants. Level-triggered: run it late, twice, or out of order.

    take the lease -> (look -> plan -> apply) until nothing is left to do now -> give the lease back, saying when to look again

What goes wrong is written on the row, in words, and tried again; only what waiting cannot mend becomes `failed`.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from k8s import cluster as api
from k8s import errors
from k8s.cluster import Cluster
from k8s.status import Observation, Phase, Verdict, observe
from portal.domain import services
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Environment, Event

from . import actions, hub, teams
from .actions import Context
from .hub import Hub, HubError
from .plan import Facts, Step, needs_phase, needs_rest, plan
from .specs import TemplateError

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
ROUNDS = 12  # more moves in a row than any path through the lifecycle has
NOTEBOOK_RESTARTS = 3  # of a notebook that was lost, within an hour
_RESTARTED = "NotebookRestarted"

# Seconds until the next look when nobody reports anything in between. A sweep every SWEEP_SECONDS finds what is due.
_SOON, _QUEUED, _RUNNING, _REST = 4.0, 15.0, 60.0, 6 * 3600.0


class Superseded(Exception):
    """The owner asked for something else, or somebody else moved it: look again."""


def converge(environment_id: UUID | str, *, cluster: Cluster | None = None, hub_client: Hub | None = None) -> bool:
    """Do what can be done now for an environment. False when another worker is at it, which then looks again by itself."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    environment = services.lease_take(environment_id, holder, LEASE_SECONDS)
    if environment is None:
        return False
    context = Context(environment=environment, cluster=cluster or api.connect(settings.KUBECONFIG_PATH), hub=hub_client or hub.connect())
    wait, failed = _SOON, True
    try:
        wait = _rounds(context)
        failed = False
    except (errors.ClusterError, HubError, TemplateError) as error:
        wait = _trouble(context, error)
    except Exception:
        logger.exception("converging failed unexpectedly")
        _note(environment, "InternalError", "Something went wrong inside the portal; it is tried again. If this stays, tell an admin.")
        wait = _backoff(environment)
    finally:
        services.lease_release(environment_id, holder, wait, failed=failed)
    return True


def _rounds(context: Context) -> float:
    """Rounds until there is nothing to do; seconds to wait before the next look."""
    fresh = context.environment.state == State.REQUESTED
    for _ in range(ROUNDS):
        try:
            wait = _Round(context, fresh).run()
        except Superseded:
            wait = None
        if wait is not None:
            return wait
        context = _reloaded(context)
    logger.warning("still not at rest after %d rounds", ROUNDS)
    return _SOON


def _reloaded(context: Context) -> Context:
    rows = Environment.objects.select_related("team", "owner", "template", "flavor__accelerator", "volume")
    return Context(environment=rows.get(pk=context.environment.pk), cluster=context.cluster, hub=context.hub)


@dataclass
class _Round:
    """One look, one plan, its steps."""

    context: Context
    fresh: bool
    observation: Observation | None = None

    def run(self) -> float | None:
        """None: something was moved, so look again at once. Else seconds to wait."""
        environment = self.context.environment
        desired, state = Desired(environment.desired), State(environment.state)
        stale = False
        if needs_phase(desired, state):
            stale = self._observe()
        empty = needs_rest(desired, state) and actions.is_empty(self.context)
        facts = Facts(
            kind=environment.kind,
            desired=desired,
            state=state,
            phase=self.observation.verdict.phase if self.observation else None,
            empty=empty,
            stale=stale,
            fresh=self.fresh,
            admitted=environment.admitted_at is not None,
            restarts_left=self.observation is None or self.observation.verdict.phase is not Phase.GONE or self._restarts_left(),
        )
        steps = plan(facts)
        moved = False
        for step in steps:
            outcome = _STEPS[step](self)
            moved = moved or step not in (Step.APPLY, Step.TEAR_DOWN, Step.CLEAN)
            if outcome is False:
                return _jittered(_QUEUED) if step is Step.ADMIT else 1.0
        if moved:
            return None
        self._store_observation()
        if state is State.RUNNING and environment.kind == "cluster" and desired is Desired.RUNNING:
            teams.clusters_announce(self.context.cluster, environment.owner)
        return self._wait(desired, state, empty)

    def _wait(self, desired: Desired, state: State, empty: bool) -> float:
        if state is State.RUNNING and desired is Desired.RUNNING:
            degraded = self.observation is not None and self.observation.verdict.phase is not Phase.READY
            return _jittered(_RUNNING / 4 if degraded else _RUNNING)
        if state in (State.STOPPED, State.DELETED, State.AWAITING_APPROVAL) or (state is State.FAILED and empty):
            return _jittered(_REST)
        return _SOON

    # --- looking ---------------------------------------------------------------

    def _observe(self) -> bool:
        environment, spec = self.context.environment, self.context.spec
        seen = actions.look(self.context, spec)
        self.observation = observe(spec, seen.seen, now=timezone.now(), was_ready=environment.state == State.RUNNING)
        return seen.stale

    def _store_observation(self, *, snapshot: dict[str, Any] | None = None) -> None:
        if self.observation is None:
            return
        verdict, environment = self.observation.verdict, self.context.environment
        told = verdict if verdict.phase in (Phase.PROGRESSING, Phase.DEGRADED) else Verdict(phase=verdict.phase)
        services.environment_observe(
            environment.pk, snapshot or self.observation.snapshot, reason=told.reason, message=told.message, generation=environment.desired_generation
        )

    def _restarts_left(self) -> bool:
        if self.context.environment.kind != "notebook":
            return True
        since = timezone.now() - timedelta(hours=1)
        return Event.objects.filter(environment=self.context.environment, code=_RESTARTED, created_at__gte=since).count() < NOTEBOOK_RESTARTS

    # --- steps -----------------------------------------------------------------

    def _move(self, to: State, reason: str = "", message: str = "") -> None:
        environment = self.context.environment
        if not services.environment_move(environment.pk, to, reason=reason, message=message, generation=environment.desired_generation):
            raise Superseded

    def queue(self) -> None:
        self._move(State.QUEUED)

    def admit(self) -> bool:
        return services.queue_admit(self.context.environment.pk)

    def clean(self) -> bool:
        return actions.clean(self.context)

    def apply(self) -> None:
        actions.make(self.context)

    def provision(self) -> None:
        self._move(State.PROVISIONING)

    def to_running(self) -> None:
        self._store_observation()
        self._move(State.RUNNING)

    def relapse(self) -> None:
        """It was up and is not any more: say why, keep what its ended pods printed, and bring it back."""
        assert self.observation is not None  # noqa: S101 - the plan has this step only after a look
        verdict, environment = self.observation.verdict, self.context.environment
        if environment.kind == "notebook" and verdict.phase is Phase.GONE:
            services.event_record(environment.pk, "warning", _RESTARTED, f"The notebook was lost and is started again. {verdict.message}".strip())
            actions.archive(self.context, [item for item in actions.left_objects(self.context) if item["kind"] == "Pod"])
        self._store_observation()
        self._move(State.PROVISIONING, verdict.reason, verdict.message)

    def fail(self) -> None:
        assert self.observation is not None  # noqa: S101 - as above
        verdict = self.observation.verdict
        reason, message = verdict.reason, verdict.message
        if verdict.phase is Phase.GONE:
            message = f"It was lost {NOTEBOOK_RESTARTS + 1} times within an hour, so it is not started again. {message} Read its log, then retry."
        fail(self.context, reason, message, self.observation.snapshot)

    def begin_stop(self) -> None:
        self._move(State.STOPPING)

    def begin_delete(self) -> None:
        self._move(State.DELETING)

    def tear_down(self) -> None:
        actions.tear_down(self.context)

    def end_stop(self) -> None:
        environment = self.context.environment
        services.environment_observe(environment.pk, _at_rest(environment.observed))
        self._move(State.STOPPED)

    def end_delete(self) -> bool:
        if not actions.forget_volume(self.context):
            return False
        teams.owner_forget(self.context.cluster, self.context.environment)
        services.environment_observe(self.context.environment.pk, _at_rest(self.context.environment.observed))
        self._move(State.DELETED)
        return True


_STEPS: dict[Step, Callable[[_Round], bool | None]] = {
    Step.QUEUE: _Round.queue,
    Step.ADMIT: _Round.admit,
    Step.CLEAN: _Round.clean,
    Step.APPLY: _Round.apply,
    Step.PROVISION: _Round.provision,
    Step.RUN: _Round.to_running,
    Step.RELAPSE: _Round.relapse,
    Step.FAIL: _Round.fail,
    Step.BEGIN_STOP: _Round.begin_stop,
    Step.BEGIN_DELETE: _Round.begin_delete,
    Step.TEAR_DOWN: _Round.tear_down,
    Step.END_STOP: _Round.end_stop,
    Step.END_DELETE: _Round.end_delete,
}


def fail(context: Context, reason: str, message: str, snapshot: dict[str, Any]) -> None:
    """Give an environment up: keep its logs and its last snapshot, take its compute down, say why."""
    environment = context.environment
    services.environment_observe(
        environment.pk, {**snapshot, "endpoints": [], **({"hub_url": ""} if "hub_url" in snapshot else {})}, reason, message, environment.desired_generation
    )
    actions.tear_down(context)
    if not services.environment_move(environment.pk, State.FAILED, reason=reason, message=message, generation=environment.desired_generation):
        raise Superseded
    logger.warning("environment failed: reason=%s", reason)


def _at_rest(observed: dict[str, Any]) -> dict[str, Any]:
    """What remains of a snapshot when nothing runs any more."""
    rest: dict[str, Any] = {"replicas": [], "endpoints": [], "steps": [], "snippet": ""}
    return {**rest, "hub_url": ""} if "hub_url" in observed else rest


# --- trouble -------------------------------------------------------------------


def _trouble(context: Context, error: errors.ClusterError | HubError | TemplateError) -> float:
    """Write what went wrong on the row. What waiting cannot mend, while something is being started, is a failure. Seconds to wait."""
    context = _reloaded(context)
    environment = context.environment
    reason, message = explain(error)
    logger.warning("converging met trouble: reason=%s error=%s", reason, error)
    starting = environment.desired == Desired.RUNNING and environment.state in (State.REQUESTED, State.QUEUED, State.PROVISIONING, State.RUNNING)
    if starting and not getattr(error, "retryable", False):
        try:
            fail(context, reason, message, environment.observed or {"replicas": [], "endpoints": [], "steps": [], "snippet": ""})
        except (errors.ClusterError, HubError, TemplateError, Superseded) as second:
            logger.warning("taking it down met trouble too: error=%s", second)
            _note(environment, reason, message)
            return _backoff(environment)
        return _SOON
    _note(environment, reason, message)
    if isinstance(error, errors.ClusterError) and error.retry_after:
        return min(error.retry_after, 60.0)
    return _backoff(environment)


def explain(error: Exception) -> tuple[str, str]:
    """(code, words with what happens next) of an error."""
    if isinstance(error, errors.Unreachable):
        return "ClusterUnreachable", "The cluster's API does not answer; it is tried again until it does."
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
    return "TemplateInvalid", f"{error} Ask an admin to correct the template."


def _note(environment: Environment, reason: str, message: str) -> None:
    """Show trouble on the row; in the history only when it begins."""
    current = Environment.objects.values("observed", "reason").get(pk=environment.pk)
    if current["reason"] != reason and environment.attempts == 0:
        services.event_record(environment.pk, "warning", reason, message)
    services.environment_observe(environment.pk, current["observed"], reason=reason, message=message)


def _backoff(environment: Environment) -> float:
    """1, 2, 4... to 60 seconds, with jitter, by the number of tries that failed."""
    return _jittered(min(60.0, 2.0 ** min(environment.attempts, 6)))


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)
