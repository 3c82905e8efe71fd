"""Rows -> specs: everything resolved that the cluster side must not look up. No network, no writes."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings

from k8s import names
from k8s.devices import CLASS_QUOTA
from k8s.spec import EnvironmentSpec, Home, TeamSpec, Topology
from portal.domain.models import Accelerator, Environment, PodException, Quota, Team
from portal.domain.quantities import ACCELERATORS, weight_thousandths
from portal.domain.shape import role_shapes

from . import operators, queues, storages
from .chips import resources_of
from .roles import TemplateError, resolved, role_of, secrets_of, values_of

__all__ = ["TemplateError", "environment_spec", "team_spec"]


def environment_spec(environment: Environment, *, connect_env: Mapping[str, str] | None = None) -> EnvironmentSpec:
    """The spec of a row, with `select_related` of team, owner, flavor__accelerator, flavor__network and volume.

    `connect_env`: variables by which a notebook finds its owner's clusters; those of the template win. Raises TemplateError.
    """
    template, flavor = environment.template_spec, environment.flavor
    accelerator = flavor.accelerator if flavor.accelerator_count else None
    shape = flavor.shape()
    base = names.object_name(environment.name, str(environment.id))
    bare = EnvironmentSpec(
        id=str(environment.id),
        install=settings.INSTALL_ID,
        name=environment.name,
        kind=environment.kind,
        team=environment.team.slug,
        owner=environment.owner.username,
        roles=(),
        namespace=names.namespace(environment.team.slug),
        base_name=base,
        service_domain=settings.SERVICE_DOMAIN,
    )
    shapes = role_shapes(template, environment.params, shape, environment.workers if environment.kind == "cluster" else None)
    operator = environment.placement.get("operator", "")
    values = values_of(bare, template, environment.params, shapes, operators.hosts_by(template, operator))
    family = accelerator.family if accelerator else ""
    extra = connect_env or {}
    roles = tuple(
        role_of(document, one, resources_of(one, accelerator, flavor.network), values, family=family, extra_env=extra)
        for document, one in zip(template["roles"], shapes, strict=True)
    )
    connect = template.get("connect", {})
    return EnvironmentSpec(
        id=bare.id,
        install=bare.install,
        name=bare.name,
        kind=bare.kind,
        team=bare.team,
        owner=bare.owner,
        roles=roles,
        namespace=bare.namespace,
        base_name=base,
        home=_home(environment),
        expires_at=environment.expires_at.isoformat() if environment.expires_at else "",
        node_selector=dict(settings.NODE_SELECTOR),
        service_domain=settings.SERVICE_DOMAIN,
        connect_env={key: resolved(str(value), values, expanded=True) for key, value in connect.get("env", {}).items()},
        connect_snippet=resolved(connect.get("snippet", ""), values),
        secrets=secrets_of(template),
        success=template.get("success", {}).get("role", ""),
        topology=_topology(environment),
        gang=template.get("scheduling", {}).get("gang", True),
        queue=queues.order_of(environment),
        operator=operators.chosen(template, operator, {**values, **operators.amounts(shapes)}),
        mounts=storages.mounts_of(environment),
    )


def _topology(environment: Environment) -> Topology | None:
    chosen = environment.placement.get("topology")
    return Topology(key=chosen["key"], value=chosen["value"], required=chosen["required"]) if chosen else None


def _home(environment: Environment) -> Home | None:
    volume, home = environment.volume, environment.template_spec.get("home")
    if volume is None or home is None:
        return None
    return Home(claim=volume.claim, size_bytes=volume.size_bytes, storage_class=settings.STORAGE_CLASS, mount_path=home.get("mount_path", "/home/jovyan"))


# --- teams ---------------------------------------------------------------------

# Quota resource -> keys of ResourceQuota, and how an amount is written there
_HARD = {"cpu": (("requests.cpu", "limits.cpu"), "{}m"), "memory": (("requests.memory", "limits.memory"), "{}"), "storage": (("requests.storage",), "{}")}


def team_spec(team: Team) -> TeamSpec:
    """The spec of a team's namespace: its limits as a ResourceQuota, and what the network lets through."""
    return TeamSpec(
        slug=team.slug,
        install=settings.INSTALL_ID,
        namespace=names.namespace(team.slug),
        hard=_hard(team),
        hub_cidrs=tuple(settings.HUB_CIDRS),
        hub_api_port=settings.HUB_API_PORT,
        egress_cidrs=tuple(settings.EGRESS_CIDRS),
        exceptions=tuple(sorted(PodException.objects.filter(team=team, revoked_at=None).values_list("capability", flat=True))),
    )


def _hard(team: Team) -> dict[str, str]:
    """What can be held by the cluster too: sums over the whole namespace. Environments, members' limits and the month's budget cannot.

    A limit that was lowered below present use stays at that use here until enough is given back: what the portal lets run must be able to
    come back after a lost node.
    """
    bounds = {
        resource: None if limit is None else max(limit, used)
        for resource, limit, used in Quota.objects.filter(team=team, user=None).values_list("resource", "limit", "used")
    }
    if bounds.get("storage") is not None:
        bounds["storage"] = (bounds["storage"] or 0) + storages.static_bytes(team)
    hard = {}
    for resource, (keys, form) in _HARD.items():
        if (bound := bounds.get(resource)) is not None:
            hard.update({key: form.format(bound) for key in keys})
    return hard | {_hard_key(key): str(count) for key, count in sorted(_devices(bounds).items())}


def _hard_key(key: str) -> str:
    """Claimed devices are counted under their class's own key, extended resources among the requests."""
    return key if key.endswith(CLASS_QUOTA) else f"requests.{key}"


def _devices(bounds: Mapping[str, int | None]) -> dict[str, int]:
    """Most of each key. Several accelerators may share one: it is bounded when each of them is (one that nobody granted counts as 0), or when
    all accelerators together are, by the granted one that gets most of it for its weight. Of a share's further keys, each device takes its part."""
    sums: dict[str, int | None] = {}
    together = bounds.get(ACCELERATORS)
    most: dict[str, int | None] = {}  # by the weighted limit of all together; None: one that shares it weighs nothing
    for accelerator in Accelerator.objects.all():
        bound = bounds.get(f"accelerator:{accelerator.slug}", 0)
        weight = weight_thousandths(accelerator.quota_weight)
        for key, amount in _per_device(accelerator).items():
            before = sums.get(key, 0)
            sums[key] = None if bound is None or before is None else before + bound * amount
            if together is not None and bound != 0:
                reach, known = together // weight * amount if weight else None, most.get(key, 0)
                most[key] = None if reach is None or known is None else max(known, reach)
    for key, reach in most.items():
        one_by_one = sums[key]
        if reach is not None:
            sums[key] = reach if one_by_one is None else min(reach, one_by_one)
    return {key: count for key, count in sums.items() if count is not None}


def _per_device(accelerator: Accelerator) -> dict[str, int]:
    """What a ResourceQuota counts for one device. It knows a class of claimed devices, not what selectors leave of it."""
    return {key.partition("#")[0]: amount for key, amount in accelerator.amounts(1).items()}
