"""Adding an engine, a chip, a network and a storage is adding files: the folder `additions` holds one of each, and nothing else knows them."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from k8s.local.admission.pod_security import violations
from portal.catalogue.loader import BUILTIN, load
from portal.domain import selectors, services
from portal.domain.errors import ValidationError
from portal.domain.models import Accelerator, Environment, Flavor, Network, Storage, Template
from portal.runtime import ROOT
from tests.portal.catalogue.test_matrix import documents_of, spec_of
from tests.schemas import faults

from .conftest import World
from .test_converge import Site, cluster, site

__all__ = ["cluster", "site"]
ADDITIONS = Path(__file__).parent / "additions"
WISH: dict[str, Any] = {"flavor": "example-tiny", "params": {"word": "moin"}, "mounts": [{"storage": "example-spill"}]}


def test_no_code_knows_them() -> None:
    names = {file.stem for file in ADDITIONS.glob("*/*.yaml")} | {"example.com/npu", "example.com/weave"}
    rooms = [str(ROOT / room) for room in ("portal", "workers", "k8s", "templates", "static/web")]
    for name in names:
        found = subprocess.run(["grep", "-rlF", "--include=*.py", "--include=*.html", "--include=*.yaml", name, *rooms], capture_output=True, text=True)
        assert found.stdout == "", f"{name} is named by {found.stdout}"


def test_they_load_and_are_offered(world: World) -> None:
    load([BUILTIN, ADDITIONS])
    assert Accelerator.objects.get(slug="example-npu").family == "npu"
    assert Flavor.objects.get(slug="example-npu-2").network == Network.objects.get(slug="example-fabric")
    assert Storage.objects.filter(slug="example-spill").exists()
    assert {flavor.slug for flavor in selectors.flavors_of(Template.objects.get(slug="example-board").spec)} == {"example-npu-2", "example-tiny"}
    with pytest.raises(ValidationError) as refused:
        world.request("board", "example-board", flavor="cpu-small")
    assert "Allowed: " in refused.value.errors["flavor"][0]
    made = world.request("board", "example-board", **WISH)
    assert (made.workers, made.params["word"], made.reserved["cpu"]) == (2, "moin", 250)


def test_their_documents_are_valid_and_hold_what_the_files_say(world: World) -> None:
    load([BUILTIN, ADDITIONS])
    template = Template.objects.get(slug="example-board")
    for flavor in selectors.flavors_of(template.spec):
        documents = list(documents_of(spec_of(template, flavor)))
        assert [fault for document in documents for fault in faults(document)] == []
        pod = next(item for item in documents if item["kind"] == "StatefulSet" and item["metadata"]["name"].endswith("-worker"))["spec"]["template"]
        beyond = [str(each) for each in violations("restricted", pod["spec"])]
        if flavor.slug == "example-tiny":
            assert beyond == []
            continue
        assert beyond
        assert all("IPC_LOCK" in each for each in beyond)
        container = pod["spec"]["containers"][0]
        assert container["image"] == "example/board-npu:1"
        assert {"example.com/npu": "2", "example.com/weave": "1"}.items() <= container["resources"]["limits"].items()
        assert pod["spec"]["nodeSelector"] == {"example.com/model": "E1"}
        assert {"key": "example.com/npu", "operator": "Exists", "effect": "NoSchedule"} in pod["spec"]["tolerations"]
        assert {"example.com/share": "whole", "k8s.v1.cni.cncf.io/networks": "example-fabric"}.items() <= pod["metadata"]["annotations"].items()
        assert {item["name"]: item.get("value") for item in container["env"]}.items() >= {"EXAMPLE_VISIBLE": "all", "EXAMPLE_FABRIC": "1"}.items()


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
def test_an_environment_of_the_new_engine_runs(site: Site) -> None:
    load([BUILTIN, ADDITIONS])
    environment = site.world.request("board", "example-board", **WISH)
    up = site.until_state(environment, "running")
    assert [(item["title"], item["role"]) for item in up.observed["endpoints"]] == [("Board", "board")]

    def board(now: Environment) -> dict[str, Any]:
        address = next(item["address"] for item in now.observed["replicas"] if item["role"] == "board")
        try:
            with urllib.request.urlopen(f"http://{address}:7700/", timeout=30) as answer:
                return json.load(answer)
        except OSError:  # its file names all hosts of the workers, so scaling starts it anew
            return {"notes": {}}

    assert board(up)["notes"] == {"worker-0": "moin x2", "worker-1": "moin x2"}
    services.environment_scale(actor=site.world.alice, environment_id=environment.pk, workers=3)
    pinned = {f"worker-{index}": "moin x3" for index in range(3)}
    more = site.until(environment, lambda now: board(now)["notes"] == pinned, "the notes of three workers")
    assert len(board(more)["expects"]) == 3
