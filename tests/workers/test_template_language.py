"""A template with every feature, from the request to the documents: what was asked for is what is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from django.utils import timezone

from k8s import manifests
from k8s.spec import Probe, Scratch, SecretKey, SecretMount
from portal.domain import services
from portal.domain.errors import Conflict, ValidationError
from portal.domain.models import Environment, Notification, Template
from tests.language import changed, everything
from workers.specs import TemplateError, environment_spec

from .conftest import World, row

OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}


def store(document: dict[str, Any]) -> str:
    fields = {key: document[key] for key in ("version", "kind", "title")}
    Template.objects.update_or_create(slug=document["slug"], defaults={**fields, "spec": document})
    return document["slug"]


@pytest.fixture
def environment(world: World) -> Environment:
    return world.request("run", store(everything()), params={"workers": 3, "label": 'a "$(POD_IP)" ${x}'})


def test_every_variable_has_its_value(environment: Environment) -> None:
    worker, launcher = environment_spec(environment).roles
    base = f"run-{environment.pk.hex[:8]}"
    domain = "atelier-vision.svc.cluster.local"
    hosts = [f"{base}-worker-{index}.{base}-worker.{domain}" for index in range(3)]
    assert worker.command == ("serve", "--number", "$(POD_INDEX)", "--of", "3", "--first", hosts[0])
    assert worker.env == {"MEMORY": "1024", "LITERAL": "${HOME}"}
    assert worker.files["/opt/conf/hosts"] == "\n".join(hosts) + "\n"
    assert worker.files["/opt/conf/launcher.json"] == (
        f'{{"launcher": "{base}-launcher.{domain}:8080", "workers": ["{hosts[0]}:7000", "{hosts[1]}:7000", "{hosts[2]}:7000"], '
        '"label": "a \\"$(POD_IP)\\" ${x}"}\n'
    )
    assert launcher.args == (",".join(hosts), "run", "vision", 'a "$$(POD_IP)" ${x}', "true")
    assert worker.stop_command == ("drain", f"{base}-launcher-0.{base}-launcher.{domain}")
    spec = environment_spec(environment)
    assert spec.connect_env == {"WORKERS": ",".join(f"{host}:7000" for host in hosts)}
    assert spec.connect_snippet.startswith(f'workers = ["{hosts[0]}:7000", ')


def test_what_a_role_asks_for_is_in_its_spec(environment: Environment) -> None:
    spec = environment_spec(environment)
    worker, launcher = spec.roles
    assert worker.secret_env == {"COOKIE": SecretKey(secret="cookie", key="value"), "HOST_KEY": SecretKey(secret="ssh", key="id_ed25519.pub")}
    assert worker.secret_mounts == (SecretMount(secret="ssh", mount_path="/etc/ssh-keys", mode=0o400),)
    assert worker.volumes == (Scratch(mount_path="/spill", size_bytes=20 * 2**30), Scratch(mount_path="/fast", size_bytes=2**30, memory=True))
    assert worker.readiness == Probe(port="comm", period_seconds=3)
    assert worker.liveness == Probe(command=("alive", "--port", "7000"), period_seconds=5, failure_threshold=5)
    assert worker.startup == Probe(port="comm", failure_threshold=60)
    assert (worker.stop_seconds, worker.scalable, worker.once) == (120, True, False)
    assert (launcher.once, launcher.retries, spec.success, spec.secrets) == (True, 2, "launcher", {"cookie": "token", "ssh": "ssh-key"})
    assert (worker.resources.cpu_millis, launcher.resources.cpu_millis) == (500, 500)


@pytest.mark.parametrize("flavor", ["cpu-small", "a100-2"])
def test_its_documents_are_valid(world: World, flavor: str) -> None:
    services.quota_set(actor=None, team=world.vision, user=None, resource="accelerator:nvidia-a100-80g", limit=8)
    spec = environment_spec(world.request("run", store(everything()), flavor=flavor))
    assert spec.roles[0].image == ("example/worker:1-cuda" if flavor == "a100-2" else "example/worker:1")
    for document in manifests.cluster_documents(spec, OWNER):
        kubernetes_validate.validate(document, "1.36", strict=True)


def test_quota_follows_the_shapes(environment: Environment, world: World) -> None:
    assert (environment.workers, environment.reserved["cpu"], environment.reserved["memory"]) == (3, 3 * 500 + 500, 3 * 2**30 + 2**30)
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=0)
    scaled = row(environment.pk)
    assert (scaled.workers, scaled.params["workers"], scaled.reserved["cpu"]) == (0, 0, 500)
    worker = environment_spec(scaled).roles[0]
    assert worker.command[-1].startswith("run-")  # replica 0 has its name, even while there is none
    assert worker.files["/opt/conf/hosts"] == "\n"


@pytest.mark.parametrize("workers", [-1, 9, 2.5, "many"])
def test_a_range_is_kept(world: World, workers: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        world.request("run", store(everything()), params={"workers": workers})
    assert list(caught.value.errors) == ["params.workers"]


def test_a_flavor_for_which_a_role_has_no_image_is_refused_naming_those_it_has(world: World) -> None:
    services.quota_set(actor=None, team=world.vision, user=None, resource="accelerator:ascend-910", limit=8)
    slug = store(changed("roles", 0, "image", to={"gpu": "a", "npu": "b"}))
    with pytest.raises(ValidationError) as caught:
        world.request("run", slug)
    assert "it has images for gpu, npu, not for cpu" in caught.value.errors["flavor"][0]
    assert environment_spec(world.request("run", slug, flavor="ascend910-1")).roles[0].image == "b"


def test_an_image_that_is_gone_from_the_template_is_an_error_in_words(environment: Environment) -> None:
    environment.template_spec["roles"][0]["image"] = {"gpu": "a"}
    with pytest.raises(TemplateError, match="no image of role worker for flavors without accelerators; it has some for: gpu"):
        environment_spec(environment)


def test_a_literal_stays_what_it_was(environment: Environment) -> None:
    environment.template_spec["connect"]["snippet"] = "$${params.label}"
    assert replace(environment_spec(environment)).connect_snippet == "${params.label}"


def test_what_runs_once_is_scaled_while_it_rests_only(world: World) -> None:
    document = changed("roles", 0, "replicas", to=2)
    document["roles"][1]["replicas"] = {"min": 1, "max": 4}
    environment = world.request("run", store(document))
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=2)  # it still waits
    Environment.objects.filter(pk=environment.pk).update(state="running", admitted_at=timezone.now())
    with pytest.raises(Conflict, match="run once"):
        services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=3)
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    Environment.objects.filter(pk=environment.pk).update(state="stopped")
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=3)
    assert row(environment.pk).workers == 3


def test_completion_is_told_once_and_not_against_a_newer_wish(world: World) -> None:
    environment = world.request("run", store(everything()))
    assert not services.environment_complete(environment.pk, "done.")  # it has not begun
    Environment.objects.filter(pk=environment.pk).update(state="running")
    assert not services.environment_complete(environment.pk, "done.", environment.desired_generation - 1)
    assert services.environment_complete(environment.pk, "done.", environment.desired_generation)
    assert not services.environment_complete(environment.pk, "done.")
    done = row(environment.pk)
    assert (done.desired, done.reason, done.message, done.delete_at is not None) == ("stopped", "Completed", "done.", True)
    assert Notification.objects.filter(user=world.alice, code="Completed").count() == 1
