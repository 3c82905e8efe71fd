"""Every sort of parameter as a form field, judged by the same words in the form and in the API; templates in groups, flavors by family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from portal.catalogue.loader import load
from portal.domain import images, services
from portal.domain.models import ApiToken, Environment, Template, User
from portal.domain.params import check_values, plain

from .world import World

FOLDER = Path(__file__).parent / "catalogue"
pytestmark = pytest.mark.usefixtures("compiled_catalogue")

ClientOf = Callable[[User], Client]
IMAGE = "registry.example.com/team/train:1.0"
FIELDS = {"name": "all", "team": "vision", "flavor": "small", "expires_in": "28800", "param_image": IMAGE, "param_seed": "7"}


@pytest.fixture
def template(world: World) -> Template:
    load([FOLDER])
    return Template.objects.get(slug="everything")


def post(client: Client, **fields: str) -> Any:
    return client.post("/launch/everything/", FIELDS | fields)


def test_the_form_has_a_field_of_the_right_sort_for_each_parameter_in_their_order(world: World, template: Template, client_of: ClientOf) -> None:
    form = client_of(world.alice).get("/launch/everything/").context["form"]
    sorts = [(field.name.removeprefix("param_"), type(field.field.widget).__name__, field.field.required) for field in form.param_fields()]
    assert sorts == [
        ("image", "TextInput", True),
        ("precision", "Select", False),
        ("debug", "CheckboxInput", False),
        ("seed", "NumberInput", True),
        ("rate", "NumberInput", False),
        ("tag", "TextInput", False),
        ("script", "Textarea", False),
        ("hosts", "Textarea", False),
    ]
    assert form["param_precision"].field.choices == [("fp32", "Full"), ("bf16", "Half")]


def test_what_is_typed_becomes_typed_values_and_what_is_empty_the_default(world: World, template: Template, client_of: ClientOf) -> None:
    script = "first line\n  second, indented\n"
    response = post(
        client_of(world.alice),
        param_precision="fp32",
        param_debug="on",
        param_rate="",
        param_tag="abc",
        param_script=script,
        param_hosts="a.example\r\n\r\n b1 \r\n",
    )
    assert response.status_code == 302, response.context["form"].errors
    assert Environment.objects.get().params == {
        "image": IMAGE,
        "precision": "fp32",
        "debug": True,
        "seed": 7,
        "rate": 0.1,
        "tag": "abc",
        "script": script,
        "hosts": ["a.example", "b1"],
    }
    text = client_of(world.alice).get(response["Location"]).content.decode()
    assert '<dt class="text-break">Precision</dt><dd class="text-break">Full</dd>' in text
    assert '<dd class="text-break">a.example<br>b1</dd>' in text
    assert "version 1" in text


WRONG = [
    ("image", "not an image", "is not the name of an image"),
    ("seed", 101, "101 is greater than the maximum of 100."),
    ("tag", "Capital", "'Capital' does not match '^[a-z]+$'."),
    ("tag", "verylongtag", "too long"),
    ("rate", 0, "0"),
    ("hosts", ["a", "b!"], "'b!' does not match"),
    ("hosts", ["a", "b", "c", "d"], "is too long"),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_a_wrong_value_is_told_at_its_field_and_by_the_api_alike(
    name: str, value: Any, says: str, world: World, template: Template, client_of: ClientOf
) -> None:
    typed = "\n".join(value) if isinstance(value, list) else str(value)
    response = post(client_of(world.alice), **{f"param_{name}": typed})
    assert response.status_code == 422
    assert says in response.context["form"].errors[f"param_{name}"][0]
    assert not Environment.objects.exists()

    _, token = services.token_create(actor=world.alice, name="t", scopes=["environments:write"])
    assert ApiToken.objects.count() == 1
    body = {"name": "all", "template": "everything", "flavor": "small", "team": "vision", "params": {"image": IMAGE, "seed": 7} | {name: value}}
    answer = Client().post("/api/v1/environments", json.dumps(body), content_type="application/json", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 422
    [(field, messages)] = answer.json()["errors"].items()
    assert field.startswith(f"params.{name}")
    assert says in messages[0]


def test_images_may_be_held_to_the_companys_registries(world: World, template: Template, client_of: ClientOf, settings: Any) -> None:
    settings.IMAGE_PREFIXES = ["registry.example.com/team", "docker.io/library/"]
    for image in ("registry.example.com/teams/x:1", "quay.io/x/y:1", "someone/python:3"):
        response = post(client_of(world.alice), param_image=image)
        assert response.context["form"].errors["param_image"] == ["Images must come from registry.example.com/team, docker.io/library/."]
    assert "Images must come from" in client_of(world.alice).get("/launch/everything/").content.decode()
    assert post(client_of(world.alice), param_image="python:3.13").status_code == 302


@pytest.mark.parametrize(
    ("image", "good"),
    [
        ("python", True),
        ("python:3.13-slim", True),
        ("localhost:5000/a/b@sha256:" + "0" * 64, True),
        ("registry.example.com:443/team/image_name:1.0", True),
        ("", False),
        ("a b", False),
        ("Python", False),
        ("https://registry.example.com/x", False),
        ("$(POD_IP)/x", False),
        ("../x", False),
        ("x:" + "t" * 129, False),
        ("x" * 300, False),
        ("a\n", False),
    ],
)
def test_the_name_of_an_image_is_told_from_what_is_none(image: str, good: bool) -> None:
    assert (images.refusal(image, ()) == "") is good


def test_the_api_gives_one_language_of_the_schema_and_it_is_a_json_schema(world: World, template: Template) -> None:
    import jsonschema

    _, token = services.token_create(actor=world.alice, name="t", scopes=["environments:read"])
    for language, title in (("en", "Precision"), ("zh-hans", "精度")):
        headers = {"Authorization": f"Bearer {token}", "Accept-Language": language}
        document = Client().get("/api/v1/templates/everything", headers=headers).json()
        jsonschema.Draft202012Validator.check_schema(document["params"])
        assert document["params"]["properties"]["precision"]["title"] == title
        assert document["flavors"] == ["small", "medium", "a100-1", "giant"]
    assert next(iter(plain(template.spec["params"])["properties"])) == "image"
    assert check_values(template.spec["params"], {"image": "x", "seed": 1})["tag"] == "run"


def test_only_allowed_flavors_are_shown_and_by_family(world: World, template: Template, client_of: ClientOf) -> None:
    client = client_of(world.alice)
    page = client.get("/launch/everything/")
    assert [(title, [item.flavor.slug for item in items]) for title, items in page.context["groups"]] == [
        ("Without accelerators", ["small", "medium"]),
        ("GPU", ["a100-1"]),
    ]
    assert [item.flavor.slug for item in page.context["absent"]] == ["giant"]
    services.template_store(spec=template.spec | {"version": 2, "flavors": {"families": ["gpu"]}})
    page = client.get("/launch/everything/")
    assert 'value="a100-1" checked' in page.content.decode()
    assert 'value="small"' not in page.content.decode()
    response = post(client)
    assert "small cannot be used with template everything: it is for gpu, not cpu. Allowed: a100-1." in response.context["form"].errors["flavor"][0]


def test_templates_are_grouped_by_kind(world: World, template: Template, client_of: ClientOf, compiled_catalogue: None) -> None:
    page = client_of(world.alice).get("/launch/")
    groups = {str(title): rows for title, rows in page.context["groups"]}
    assert list(groups) == ["Notebooks", "Clusters"]
    assert {row.kind for row in groups["Notebooks"]} == {"notebook"}
    assert {"dask", "everything"} <= {row.slug for row in groups["Clusters"]}
    text = client_of(world.alice).get("/launch/everything/", headers={"Accept-Language": "zh-hans"}).content.decode()
    for said in ("精度", "半精度", "输出更多日志", "每行一个。", "无加速器"):
        assert said in text


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({"type": "object"}, "must be one of string"),
        ({}, "must be one of string"),
        ({"type": "array", "items": {"type": "integer"}}, "items: {type: string}"),
        ({"type": "string", "format": "email"}, "must be one of multiline, image"),
        ({"type": "string", "format": "password"}, "use `secrets`"),
        ({"type": "string", "writeOnly": True}, "use `secrets`"),
        ({"type": "string", "title": {"zh-hans": "仅中文"}}, "{en: text, zh-hans: text}"),
        ({"enum": ["a"], "titles": {"b": "B"}}, "b is not in the enum"),
        ({"type": "string", "titles": {"b": "B"}}, "beside an enum"),
        ({"enum": [1, "1"]}, "read alike"),
        ({"type": "string", "format": "image", "default": "Not An Image"}, "is not the name of an image"),
        ({"type": "integer", "default": "x"}, "is not of type 'integer'"),
        ("text", "'text' is not of type 'object'"),
    ],
)
def test_a_parameter_that_no_form_can_ask_for_is_a_fault(definition: Any, says: str) -> None:
    from portal.catalogue import choices

    found = list(choices.params({"type": "object", "additionalProperties": False, "properties": {"x": definition}}))
    assert any(says in fault.message for fault in found), found
    assert all(fault.field.startswith("params.properties.x") for fault in found), found
