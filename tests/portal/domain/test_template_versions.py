"""What an environment keeps of its template, what replaces it at the next start, and which flavors a template takes."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
import yaml

from portal.catalogue.loader import BUILTIN
from portal.domain import selectors, services
from portal.domain.allowed import allowed, why_not
from portal.domain.errors import Conflict, ValidationError
from portal.domain.lifecycle import State
from portal.domain.models import ApprovalRule, Environment, Event, Flavor, Priority, Template
from tests.portal.world import World

DASK: dict[str, Any] = yaml.safe_load((BUILTIN / "templates" / "dask.yaml").read_text())


def newer(slug: str = "dask", **changes: Any) -> dict[str, Any]:
    """The next version of a template; `properties` and `without` change its parameters."""
    spec = copy.deepcopy(Template.objects.get(slug=slug).spec)
    for name, definition in changes.pop("properties", {}).items():
        spec["params"]["properties"][name] = definition
    for name in changes.pop("without", ()):
        del spec["params"]["properties"][name]
    spec |= {"version": spec["version"] + 1} | changes
    services.template_store(spec=spec)
    return spec


def stopped(world: World, **wish: Any) -> Environment:
    environment = world.running(**({"name": "dk", "template": "dask", "params": {"workers": 3}} | wish))
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    return world.bring_to(environment, "stopping", "stopped")


def started(world: World, environment: Environment) -> tuple[Environment, dict[str, str]]:
    """After its start; and what the start said: code -> message."""
    last = environment.last_seq
    services.environment_start(actor=world.alice, environment_id=environment.pk)
    events = Event.objects.filter(environment=environment, seq__gt=last)
    return Environment.objects.get(pk=environment.pk), {event.code: event.message for event in events}


def test_without_a_redirect_it_keeps_the_version_that_it_was_made_from(world: World) -> None:
    environment = stopped(world)
    newer(icon="moon")
    assert selectors.next_version(environment) is None
    after, says = started(world, environment)
    assert (after.template_version, after.template_spec) == (environment.template_version, environment.template_spec)
    assert not {"TemplateReplaced", "TemplateKept"} & set(says)


def test_a_replaced_version_is_left_at_the_next_start_and_not_before(world: World) -> None:
    environment = stopped(world)
    first = environment.template_version
    newer(replaces=[first], icon="sun")
    spec = newer(replaces=[first + 1], icon="moon", properties={"mode": {"enum": ["a", "b"], "default": "b"}})
    environment.refresh_from_db()
    assert environment.template_version == first
    assert selectors.next_version(environment) == spec["version"] == first + 2
    after, says = started(world, environment)
    assert (after.template_version, after.template_spec["icon"], after.workers) == (first + 2, "moon", 3)
    assert after.params == {"workers": 3, "mode": "b"}
    assert says["TemplateReplaced"] == f"Version {first + 2} of template dask replaces version {first}; it starts with that."
    assert list(says) == ["StartRequested", "TemplateReplaced", "Queued"]
    assert selectors.next_version(after) is None


def test_none_at_all_is_a_number_of_workers_too(world: World) -> None:
    newer(properties={"workers": {"type": "integer", "minimum": 0, "maximum": 9, "default": 2}})
    environment = stopped(world, params={"workers": 0})
    newer(replaces=[environment.template_version], icon="sun")
    after, _ = started(world, environment)
    assert (after.template_spec["icon"], after.workers, after.params) == ("sun", 0, {"workers": 0})


def test_a_retry_follows_too_and_what_has_to_be_approved_is_asked_with_the_later_version(world: World) -> None:
    environment = world.bring_to(world.request(name="dk", template="dask"), "queued", "provisioning", "failed")
    spec = newer(replaces=[environment.template_version])
    ApprovalRule.objects.create(resource="cpu", above=1)
    services.environment_retry(actor=world.alice, environment_id=environment.pk)
    environment.refresh_from_db()
    assert (environment.state, environment.template_version) == (State.AWAITING_APPROVAL, spec["version"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"properties": {"workers": DASK["params"]["properties"]["workers"] | {"maximum": 2}}}, "3 is greater than the maximum of 2."),
        ({"flavors": {"only": ["ascend910-1"]}}, "cpu-small cannot be used with template dask: it takes only ascend910-1. Allowed: ascend910-1."),
        ({"home": {"mount_path": "/home/x"}}, "it has a home volume, this environment has none."),
    ],
)
def test_what_does_not_go_with_the_later_version_starts_with_its_own_and_says_why(world: World, changes: dict[str, Any], says: str) -> None:
    environment = stopped(world)
    first = environment.template_version
    newer(replaces=[first], **changes)
    after, said = started(world, environment)
    assert (after.state, after.template_version, after.params) == (State.QUEUED, first, {"workers": 3})
    message = f"Version {first + 1} of template dask replaces version {first}, but it cannot start with that, so it keeps its own: {says}"
    assert said["TemplateKept"] == message
    assert Event.objects.get(environment=environment, code="TemplateKept").kind == Event.Kind.WARNING


def test_a_value_that_somebody_chose_never_falls_away_and_a_default_does(world: World) -> None:
    newer(properties={"speed": {"type": "integer", "default": 1}})
    usual, chosen = stopped(world, name="usual"), stopped(world, name="chosen", params={"workers": 2, "speed": 9})
    newer(replaces=[usual.template_version], without=["speed"])
    after, says = started(world, usual)
    assert (after.params, after.template_version) == ({"workers": 3}, usual.template_version + 1)
    assert says["TemplateReplaced"].endswith("it starts with that. It no longer has speed.")
    after, says = started(world, chosen)
    assert (after.params["speed"], after.template_version) == (9, chosen.template_version)
    assert says["TemplateKept"].endswith("it has no parameter speed.")


def test_a_shorter_longest_time_holds_from_the_next_start(world: World) -> None:
    environment = stopped(world, expires_in=timedelta(hours=20))
    newer(replaces=[environment.template_version], expires_in="2h", max_expires_in="4h")
    after, says = started(world, environment)
    assert after.expires_in == 2 * 3600
    assert "It runs for 2h instead of 20h, which that does not allow." in says["TemplateReplaced"]


def test_what_a_redirected_start_takes_is_reserved_by_the_later_version(world: World) -> None:
    environment = stopped(world)
    spec = copy.deepcopy(DASK)
    spec["roles"][0]["resources"] = {"cpu": 2, "memory": "1Gi"}
    newer(replaces=[environment.template_version], roles=spec["roles"])
    after, _ = started(world, environment)
    assert after.reserved["cpu"] == 2000 + 3 * 1000 == world.used("cpu")


# --- flavors ----------------------------------------------------------------------


def slugs(rule: dict[str, Any], images: Any = "i:1") -> list[str]:
    spec = {"slug": "t", "flavors": rule, "roles": [{"name": "a", "image": images}, {"name": "b", "image": "i:1"}]}
    kept = {"cpu-small", "cpu-large", "gpu-1", "a100-1", "a100-2", "ascend910-1"}
    return sorted(flavor.slug for flavor in allowed(spec, Flavor.objects.select_related("accelerator")) if flavor.slug in kept)


@pytest.mark.parametrize(
    ("rule", "images", "expected"),
    [
        ({}, "i:1", ["a100-1", "a100-2", "ascend910-1", "cpu-large", "cpu-small", "gpu-1"]),
        ({"families": ["cpu"]}, "i:1", ["cpu-large", "cpu-small"]),
        ({"families": ["cpu", "gpu"], "not": ["*-large", "a100-[2-9]"]}, "i:1", ["a100-1", "cpu-small", "gpu-1"]),
        ({"only": ["a100-*", "cpu-small"]}, "i:1", ["a100-1", "a100-2", "cpu-small"]),
        ({}, {"gpu": "i:gpu", "npu": "i:npu"}, ["a100-1", "a100-2", "ascend910-1", "gpu-1"]),
        ({"not": ["gpu-1"]}, {"default": "i:1", "npu": "i:npu"}, ["a100-1", "a100-2", "ascend910-1", "cpu-large", "cpu-small"]),
        ({"families": ["cpu"]}, {"gpu": "i:gpu"}, []),
    ],
)
def test_a_template_takes_the_flavors_that_its_rule_and_its_images_allow(world: World, rule: dict[str, Any], images: Any, expected: list[str]) -> None:
    assert slugs(rule, images) == expected


def test_a_flavor_that_is_not_allowed_is_refused_by_request_preview_start_and_approval(world: World) -> None:
    environment = stopped(world)
    newer(flavors={"only": ["cpu-*"], "not": ["cpu-medium"]})
    says = "cpu-medium cannot be used with template dask: it does not take this one. Allowed: cpu-small, cpu-large."
    wish: dict[str, Any] = {"actor": world.alice, "name": "other", "template": "dask", "flavor": "cpu-medium", "team": ""}
    for verb in (services.environment_request, services.environment_preview):
        with pytest.raises(ValidationError) as refused:
            verb(**wish)
        assert refused.value.errors["flavor"] == [says]
    ApprovalRule.objects.create(flavor=Flavor.objects.get(slug="cpu-large"))
    asked = services.environment_request(**wish | {"flavor": "cpu-large"})
    approval = asked.approvals.get()
    with pytest.raises(ValidationError) as refused:
        services.approval_grant(actor=world.lena, approval_id=approval.pk, flavor="cpu-medium")
    assert "cannot be used with template dask" in refused.value.errors["flavor"][0]
    services.approval_grant(actor=world.lena, approval_id=approval.pk, flavor="cpu-small")
    spec = environment.template_spec | {"flavors": {"families": ["gpu"]}}
    Environment.objects.filter(pk=environment.pk).update(template_spec=spec)
    with pytest.raises(Conflict, match="it is for gpu, not cpu"):
        services.environment_start(actor=world.alice, environment_id=environment.pk)


def test_a_flavor_without_its_chips_counts_as_cpu() -> None:
    assert why_not({"slug": "t", "roles": [], "flavors": {"families": ["gpu"]}}, Flavor(slug="x", accelerator_count=0)) == "it is for gpu, not cpu"


# --- priority ---------------------------------------------------------------------


def test_a_templates_priority_is_the_default_of_who_may_use_it(world: World) -> None:
    newer(scheduling={"priority": "low"})
    assert world.request(name="a", template="dask").priority == "low"
    assert world.request(name="b", template="dask", priority="normal").priority == "normal"
    newer(scheduling={"priority": "high"})
    assert not Priority.objects.get(slug="high").everyone or Priority.objects.get(slug="high").leads_only
    assert world.request(name="c", template="dask").priority == "normal"
    assert world.request(name="d", template="dask", actor=world.lena).priority == "high"
