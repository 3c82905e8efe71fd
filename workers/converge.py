"""Brings one environment from where it is towards what its owner wants. Level-triggered: run it late, twice, or out of order.

    take the lease -> (look -> plan -> apply) until nothing is left to do now -> give the lease back, saying when to look again

What goes wrong is written on the row, in words, and tried again; only what waiting cannot mend becomes `failed`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.db.models import Max
from django.utils import timezone

from k8s import cluster as api
from k8s import errors, queues
from k8s.cluster import Cluster
from k8s.status import Observation, Phase, Verdict, observe
from portal.domain import services
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Environment, Event

from . import actions, hub, lease, looking, teams
from .context import Context
from .hub import Hub, HubError
from .lease import Lease, LeaseLost
from .looking import Look
from .plan import Facts, Step, needs_past, needs_phase, needs_rest, plan
from .specs import TemplateError
from .trouble import LASTING, PASSING, backoff, explain, jittered, note

logger = logging.getLogger(__name__)

ROUNDS = 12  # more moves in a row than any path through the lifecycle has
NOTEBOOK_RESTARTS = 3  # of a notebook that was lost, within an hour
ROOM_SECONDS = 60.0  # for which pods may be without a node before a first start gives way; half a gang must not hold chips for longer
_RESTARTED = "NotebookRestarted"
_ASKED = ("StartRequested", "RetryRequested")

# Seconds until the next look when nobody reports anything in between. A sweep every SWEEP_SECONDS finds what is due.
_SOON, _QUEUED, _RUNNING, _REST = 4.0, 15.0, 60.0, 6 * 3600.0


class Superseded(Exception):
    """The owner asked for something else, or somebody else moved it: look again."""


def converge(environment_id: UUID | str, *, cluster: Cluster | None = None, hub_client: Hub | None = None) -> bool:
    """Do what can be done now for an environment. False when another worker is at it, which then looks again by itself, or while it
    backs off. With the database away nothing is done; the lease runs out, and a sweep finds the row."""
    try:
        return _converge(environment_id, cluster, hub_client)
    except LeaseLost as error:
        logger.warning("stopped half-way: %s", error)  # whoever has it now begins by looking
        return True
    except (OperationalError, InterfaceError) as error:
        logger.warning("the database does not answer, a sweep finds it again: error=%s", " ".join(str(error).split())[:200])
        return False


def _converge(environment_id: UUID | str, cluster: Cluster | None, hub_client: Hub | None) -> bool:
    holder, since = lease.new_holder(), time.monotonic()
    environment = services.lease_take(environment_id, holder, lease.SECONDS)
    if environment is None:
        return False
    context = Context(environment=environment, cluster=cluster or api.connect(settings.KUBECONFIG_PATH), hub=hub_client or hub.connect())
    failed = False
    with Lease(environment.pk, holder, since, lease.SECONDS) as held:
        try:
            wait = _rounds(context, held)
        except (errors.ClusterError, HubError, TemplateError) as error:
            wait, failed = _trouble(context, held, error), True
        except (OperationalError, InterfaceError, LeaseLost):
            raise
        except Exception:
            logger.exception("converging failed unexpectedly")
            note(environment, "InternalError", "Something went wrong inside the portal; it is tried again. If this stays, tell an admin.")
            wait, failed = backoff(environment, LASTING), True
    services.lease_release(environment_id, holder, wait, failed=failed, generation=environment.desired_generation if failed else None)
    return True


def _rounds(context: Context, held: Lease) -> float:
    """Rounds until there is nothing to do; seconds to wait before the next look."""
    fresh = context.environment.state == State.REQUESTED
    for _ in range(ROUNDS):
        try:
            wait = _Round(context, held, fresh).run()
        except Superseded:
            wait = None
        if wait is not None:
            return wait
        context = _reloaded(context)
    logger.warning("still not at rest after %d rounds", ROUNDS)
    return _SOON


def _reloaded(context: Context) -> Context:
    rows = Environment.objects.select_related("team", "owner", "template", "flavor__accelerator", "flavor__network", "volume")
    return Context(environment=rows.get(pk=context.environment.pk), cluster=context.cluster, hub=context.hub)


@dataclass
class _Round:
    """One look, one plan, its steps."""

    context: Context
    held: Lease
    fresh: bool
    observation: Observation | None = None
    look: Look | None = None
    untouched: bool = False

    def run(self) -> float | None:
        """None: something was moved, so look again at once. Else seconds to wait."""
        environment = self.context.environment
        desired, state = Desired(environment.desired), State(environment.state)
        facts = self._facts(desired, state)
        moved = False
        for step in plan(facts):
            self.held.check()
            outcome = _STEPS[step](self)
            moved = moved or step in _MOVES
            if outcome is False:
                return jittered(_QUEUED) if step is Step.ADMIT else 1.0
            if step is Step.PROVISION:
                return _SOON  # nothing to see yet; the watcher tells of the first pod
        if moved:
            return None
        self._store_observation()
        if facts.held_outside and self.look is not None:
            actions.tell_queue(self.context, self.look.seen)
        if state is State.RUNNING and environment.kind == "cluster" and desired is Desired.RUNNING:
            teams.clusters_announce(self.context.cluster, environment.owner)
        return self._wait(facts)

    def _wait(self, facts: Facts) -> float:
        if facts.state is State.RUNNING and facts.desired is Desired.RUNNING:
            # A pod that is still on its way out is a change to come, whose message may be lost.
            changing = facts.phase is not Phase.READY or facts.stale or (self.look is not None and self.look.leaving)
            return jittered(_RUNNING / 4 if changing else _RUNNING)
        if facts.held_outside:
            return jittered(_QUEUED)
        if facts.state in (State.STOPPED, State.DELETED, State.AWAITING_APPROVAL) or (facts.state is State.FAILED and facts.empty):
            return jittered(_REST)
        return _SOON

    # --- looking ---------------------------------------------------------------

    def _facts(self, desired: Desired, state: State) -> Facts:
        environment = self.context.environment
        admitted = environment.admitted_at is not None
        external = environment.placement.get("queue", "") in queues.SYSTEMS
        phase, without_room, held_outside = None, 0.0, False
        if needs_phase(desired, state, waits_outside=admitted and external):
            look = self._observe()
            assert self.observation is not None  # noqa: S101 - made by the look
            phase, without_room = self.observation.verdict.phase, self.observation.without_room
            held_outside = state is State.QUEUED and looking.held_outside(self.context, look.seen)
        if needs_past(desired, state):
            self.untouched = not admitted and not actions.was_made(pk=environment.pk)
        return Facts(
            kind=environment.kind,
            desired=desired,
            state=state,
            phase=phase,
            empty=needs_rest(desired, state) and actions.is_empty(self.context),
            stale=self.look is not None and self.look.stale,
            stuck=self.look is not None and bool(looking.stuck(self.look.seen.pods)),
            fresh=self.fresh,
            admitted=admitted,
            external=external,
            held_outside=held_outside,
            no_room=environment.started_at is None and without_room >= ROOM_SECONDS,
            restarts_left=phase is not Phase.GONE or self._restarts_left(),
            untouched=self.untouched,
        )

    def _observe(self) -> Look:
        environment, spec = self.context.environment, self.context.spec
        self.look = looking.look(self.context, spec)
        # A cluster that was up in this run has earned patience; a notebook's server is started anew, so its start counts by itself.
        was_up = environment.state == State.RUNNING or (environment.kind == "cluster" and environment.started_at is not None)
        self.observation = observe(spec, self.look.seen, now=timezone.now(), was_ready=was_up)
        return self.look

    def _store_observation(self, *, snapshot: dict[str, Any] | None = None) -> None:
        if self.observation is None:
            return
        verdict, environment = self.observation.verdict, self.context.environment
        told = verdict if verdict.phase in (Phase.PROGRESSING, Phase.DEGRADED) else Verdict(phase=verdict.phase)
        services.environment_observe(
            environment.pk, snapshot or self.observation.snapshot, reason=told.reason, message=told.message, generation=environment.desired_generation
        )

    # --- losses ------------------------------------------------------------------

    def _loss(self) -> str:
        """Names this loss of the notebook: the run that ended, or the pod that was taken during a start. Told and counted once, however
        often the way back is begun: what is left of the run that ended is no loss of the start after it."""
        environment = self.context.environment
        pods = self.look.seen.pods if self.look and environment.state != State.RUNNING else ()
        ended = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed" and not pod["metadata"].get("deletionTimestamp")]
        if ended:
            return f"lost:{ended[0]['metadata']['uid']}"
        runs = Event.objects.filter(environment=environment, kind=Event.Kind.STATE, to_state=State.RUNNING)
        return f"lost:{runs.aggregate(last=Max('seq'))['last']}"

    def _is_loss(self) -> bool:
        """Whether a server went away, rather than was not started yet."""
        return self.context.is_notebook and self.observation is not None and bool(self.observation.verdict.reason)

    def _tell_loss(self) -> None:
        assert self.observation is not None  # noqa: S101 - as above
        message = f"The notebook was lost and is started again. {self.observation.verdict.message}".strip()
        services.event_record(self.context.environment.pk, "warning", _RESTARTED, message, source=self._loss())

    def _restarts_left(self) -> bool:
        """Within the last hour, and since somebody asked for the start: a retry begins with all of them."""
        if not self._is_loss():
            return True
        history = Event.objects.filter(environment=self.context.environment)
        asked = history.filter(kind=Event.Kind.ACTION, code__in=_ASKED).aggregate(last=Max("seq"))["last"] or 0
        since = timezone.now() - timedelta(hours=1)
        earlier = history.filter(code=_RESTARTED, created_at__gte=since, seq__gt=asked).exclude(source=self._loss())
        return earlier.count() < NOTEBOOK_RESTARTS

    # --- steps -----------------------------------------------------------------

    def _move(self, to: State, reason: str = "", message: str = "") -> None:
        environment = self.context.environment
        if not services.environment_move(environment.pk, to, reason=reason, message=message, generation=environment.desired_generation):
            raise Superseded

    def queue(self) -> None:
        self._move(State.QUEUED)

    def admit(self) -> bool:
        return actions.admit(self.context)

    def clean(self) -> bool:
        return actions.clean(self.context)

    def apply(self) -> None:
        """Make or mend; what somebody removed behind the portal's back is told."""
        environment, observation = self.context.environment, self.observation
        if self.look and self.look.missing and environment.started_at is not None and observation and observation.verdict.phase is not Phase.GONE:
            message = f"Removed from the cluster, and made again: {', '.join(self.look.missing)}."
            services.event_record(environment.pk, "warning", "ObjectsMissing", message, source=f"missing:{self._loss()}")
        if environment.state == State.PROVISIONING and observation and observation.verdict.phase is Phase.GONE and self._is_loss():
            self._tell_loss()
        actions.make(self.context)

    def release(self) -> None:
        if self.look is not None:
            actions.release(self.context, self.look.seen.pods)

    def requeue(self) -> None:
        """Give up what its pods hold. The row changes last: until then the next look comes back here."""
        assert self.observation is not None  # noqa: S101 - the plan has this step only after a look
        environment = self.context.environment
        actions.tear_down(self.context)
        self.held.check()
        if not services.queue_return(environment.pk, self.observation.verdict.message, environment.desired_generation):
            raise Superseded

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
            self._tell_loss()
            actions.archive(self.context, [item for item in actions.left_objects(self.context) if item["kind"] == "Pod"])
        self._store_observation()
        self._move(State.PROVISIONING, verdict.reason, verdict.message)

    def complete(self) -> None:
        assert self.observation is not None  # noqa: S101 - as above
        environment = self.context.environment
        services.environment_complete(environment.pk, self.observation.verdict.message, environment.desired_generation)

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
        if not actions.forget_volume(self.context, untouched=self.untouched):
            return False
        if not self.untouched:
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
    Step.RELEASE: _Round.release,
    Step.REQUEUE: _Round.requeue,
    Step.COMPLETE: _Round.complete,
    Step.FAIL: _Round.fail,
    Step.BEGIN_STOP: _Round.begin_stop,
    Step.BEGIN_DELETE: _Round.begin_delete,
    Step.TEAR_DOWN: _Round.tear_down,
    Step.END_STOP: _Round.end_stop,
    Step.END_DELETE: _Round.end_delete,
}
_MOVES = frozenset(_STEPS) - {Step.APPLY, Step.TEAR_DOWN, Step.CLEAN, Step.RELEASE}


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


def _trouble(context: Context, held: Lease, error: errors.ClusterError | HubError | TemplateError) -> float:
    """Write what went wrong on the row. What waiting cannot mend, while something is being started, is a failure. Seconds to wait.

    What is up already is never taken down for an error: a cluster that refuses to be looked at may well be running it.
    """
    context = _reloaded(context)
    environment = context.environment
    reason, message = explain(error)
    logger.warning("converging met trouble: reason=%s error=%s", reason, error)
    starting = environment.desired == Desired.RUNNING and environment.state in (State.REQUESTED, State.QUEUED, State.PROVISIONING)
    passing = getattr(error, "retryable", False)
    if starting and not passing:
        held.check()
        try:
            fail(context, reason, message, environment.observed or {"replicas": [], "endpoints": [], "steps": [], "snippet": ""})
        except (errors.ClusterError, HubError, TemplateError, Superseded) as second:
            logger.warning("taking it down met trouble too: error=%s", second)
            note(environment, reason, message)
            return backoff(environment, LASTING)
        return _SOON
    note(environment, reason, message)
    wait = backoff(environment, PASSING if passing else LASTING)
    asked = error.retry_after if isinstance(error, errors.ClusterError) else None
    return max(wait, min(asked or 0.0, LASTING))
