"""What the pages show and what they do with what is typed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from portal.domain import services
from portal.domain.lifecycle import State
from portal.domain.models import ApiToken, Environment, Node, Template, User

from .world import World, fail, launch, provision, run_cluster, run_notebook

HTMX = {"HX-Request": "true"}


def post_launch(client: Client, template: str = "notebook", **fields: str) -> object:
    return client.post(f"/launch/{template}/", {"name": "train", "team": "vision", "flavor": "small", "expires_in": "28800", **fields})


def test_an_empty_list_says_how_to_begin(world: World, client_of: Callable[[User], Client]) -> None:
    page = client_of(world.alice).get("/")
    assert b"No environments yet" in page.content
    assert b'href="/launch/"' in page.content


def test_a_refresh_gets_the_same_rows_as_the_page_and_nothing_around_them(world: World, client_of: Callable[[User], Client]) -> None:
    launch(world.alice, "train")
    client = client_of(world.alice)
    page, fragment = client.get("/"), client.get("/", headers=HTMX)
    assert b"<html" in page.content
    assert b"<html" not in fragment.content
    assert fragment.content.strip().startswith(b'<div id="live"')
    assert b"train" in fragment.content
    assert "HX-Request" in fragment["Vary"]


def test_a_launch_makes_an_environment_and_leads_to_its_page(world: World, client_of: Callable[[User], Client]) -> None:
    client = client_of(world.alice)
    response = post_launch(client, "dask", param_workers="3")
    row = Environment.objects.get()
    assert response["Location"] == f"/environments/{row.pk}/"
    assert (row.name, row.kind, row.workers, row.flavor.slug, row.team.slug, row.expires_in) == ("train", "cluster", 3, "small", "vision", 28800)
    assert b"train" in client.get(response["Location"]).content


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "../../etc"}, "Not a name"),
        ({"name": "x" * 300}, "200"),
        ({"name": ""}, "required"),
        ({"flavor": "giant"}, "no node has 512 CPU"),
        ({"flavor": "nothing"}, "There is no such flavor"),
        ({"flavor": ""}, "required"),
        ({"team": "speech"}, "speech"),
        ({"expires_in": "31536000"}, "31536000"),
        ({"param_workers": "-1"}, "-1 is less than the minimum of 1"),
        ({"param_workers": "100000"}, "100000 is greater than the maximum of 32"),
        ({"param_workers": "many"}, "whole number"),
    ],
)
def test_a_refused_launch_says_why_at_the_field_and_loses_nothing(fields: dict[str, str], said: str, world: World, client_of: Callable[[User], Client]) -> None:
    response = post_launch(client_of(world.alice), "dask", **{"name": "kept-name", "param_workers": "7", **fields})
    assert response.status_code == 422
    text = response.content.decode()
    assert said in text
    form = response.context["form"]
    [wrong] = fields
    assert form.errors[wrong], "the refusal is at the field"
    for name, value in {"name": "kept-name", "param_workers": "7", **fields}.items():
        assert form[name].value() == value
    if wrong != "name":
        assert 'value="kept-name"' in text
    assert not Environment.objects.exists()


def test_a_full_quota_is_told_with_limit_use_and_who_can_change_it(world: World, client_of: Callable[[User], Client]) -> None:
    services.quota_set(actor=None, team=world.vision, user=None, resource="cpu", limit=500)
    response = post_launch(client_of(world.alice))
    assert response.status_code == 422
    assert "Team vision may use 0.5 CPU" in response.content.decode()
    assert "admin (platform admin)" in response.content.decode()


def test_a_preview_shows_the_quota_before_and_after_and_makes_nothing(world: World, client_of: Callable[[User], Client]) -> None:
    launch(world.alice, "first")
    fields = {"name": "", "team": "vision", "flavor": "medium", "expires_in": "3600"}
    text = client_of(world.alice).post("/launch/notebook/preview", fields).content.decode()
    assert "1 → 2 of 8" in text
    assert "1 → 5 of 24" in text
    assert "A new home volume of 10 GiB is made." in text
    assert Environment.objects.count() == 1


def test_a_preview_over_the_quota_says_so(world: World, client_of: Callable[[User], Client]) -> None:
    fields = {"name": "big", "team": "vision", "flavor": "medium", "param_workers": "30", "expires_in": "3600"}
    text = client_of(world.alice).post("/launch/dask/preview", fields).content.decode()
    assert "Team vision may use 24 CPU" in text
    assert "bg-red" in text


def test_the_flavors_show_what_is_free_now_and_what_is_simulated(world: World, client_of: Callable[[User], Client]) -> None:
    text = client_of(world.alice).get("/launch/notebook/").content.decode()
    assert "6 of 8 free now" in text
    assert text.count("simulated") >= 1
    offered, _, absent = text.partition('id="flavors-absent"')
    assert "that no node of this cluster can hold" in absent
    assert 'name="flavor"' in offered
    assert 'name="flavor"' not in absent


def test_a_template_whose_flavors_fit_no_node_says_so(world: World, client_of: Callable[[User], Client]) -> None:
    Node.objects.update(allocatable={"cpu": 100, "memory": 2**20, "pods": 1})
    text = client_of(world.alice).get("/launch/notebook/").content.decode()
    assert "No node of this cluster can hold a flavor of this template." in text
    assert '<details class="mt-3" id="flavors-absent" open>' in text
    assert 'name="flavor"' not in text


def test_parameters_are_rendered_from_the_templates_schema(world: World, client_of: Callable[[User], Client]) -> None:
    template = Template.objects.get(slug="dask")
    template.spec["params"]["properties"] |= {
        "mode": {"type": "string", "enum": ["fast", "safe"], "default": "safe", "title": {"en": "Mode", "zh-hans": "模式"}},
        "debug": {"type": "boolean", "default": False, "title": "Debug"},
        "ratio": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
        "note": {"type": "string", "maxLength": 10},
    }
    template.save()
    client = client_of(world.alice)
    text = client.get("/launch/dask/").content.decode()
    assert '<option value="safe" selected>' in text
    assert 'type="checkbox" name="param_debug"' in text
    assert 'name="param_ratio" value="0.5"' in text
    response = post_launch(client, "dask", param_workers="2", param_mode="fast", param_debug="on", param_ratio="0.25", param_note="hi")
    assert response.status_code == 302
    assert Environment.objects.get().params == {"workers": 2, "mode": "fast", "debug": True, "ratio": 0.25, "note": "hi"}
    refused = post_launch(client, "dask", name="second", param_mode="other", param_ratio="7")
    assert {"param_mode"} <= set(refused.context["form"].errors)


def test_an_unknown_template_is_not_found(world: World, client_of: Callable[[User], Client]) -> None:
    client = client_of(world.alice)
    assert client.get("/launch/nothing/").status_code == 404
    assert post_launch(client, "nothing").status_code == 404
    assert client.post("/launch/nothing/preview", {}).status_code == 404


def test_the_page_of_a_cluster_shows_its_replicas_endpoints_and_how_to_connect(world: World, client_of: Callable[[User], Client]) -> None:
    row = launch(world.alice, "sweep", "dask", workers=2)
    run_cluster(row)
    text = client_of(world.alice).get(reverse("environment", args=[row.pk])).content.decode()
    for part in ("sweep-scheduler-0", "sweep-worker-1", "tcp://sweep-scheduler.atelier-vision.svc.cluster.local:8786", "from dask.distributed import Client"):
        assert part in text
    assert 'href="tcp:' not in text
    assert "simulated" in text
    assert 'data-dialog="dialog-scale"' in text
    assert "Open JupyterLab" not in text


def test_a_failed_environment_says_why_and_offers_a_retry(world: World, client_of: Callable[[User], Client]) -> None:
    row = launch(world.alice, "broken")
    fail(row)
    client = client_of(world.alice)
    text = client.get(reverse("environment", args=[row.pk])).content.decode()
    assert "The image example/none:1 cannot be pulled: not found." in text
    assert reverse("environment_retry", args=[row.pk]) in text
    response = client.post(reverse("environment_retry", args=[row.pk]))
    assert response.status_code == 302
    row.refresh_from_db()
    assert row.state == State.QUEUED


def test_what_users_and_pods_wrote_is_escaped(world: World, client_of: Callable[[User], Client]) -> None:
    attack = "<img src=x onerror=alert(1)>"
    row = launch(world.alice, "train")
    provision(row)
    observed = {
        "replicas": [{"name": attack, "role": attack, "state": attack, "node": attack, "reason": attack, "message": attack}],
        "endpoints": [{"name": "a", "title": attack, "url": "javascript:alert(1)", "role": attack}],
        "steps": [{"key": "a", "title": attack, "state": attack, "message": attack}],
        "snippet": f"</code>{attack}",
    }
    services.environment_observe(row.pk, observed, reason=attack, message=attack)
    services.event_record(row.pk, "warning", attack, attack)
    client = client_of(world.alice)
    for address in ("/", reverse("environment", args=[row.pk])):
        text = client.get(address).content.decode()
        assert attack not in text
        assert 'href="javascript' not in text
    assert "&lt;img" in text


def test_stop_start_scale_extend_rename_and_delete_do_what_they_say(world: World, client_of: Callable[[User], Client]) -> None:
    row = launch(world.alice, "sweep", "dask", workers=2)
    run_cluster(row)
    client = client_of(world.alice)

    def post(verb: str, **fields: str) -> Environment:
        assert client.post(reverse(f"environment_{verb}", args=[row.pk]), fields).status_code == 302
        row.refresh_from_db()
        return row

    assert post("scale", workers="4").workers == 4
    assert post("extend", expires_in="172800").expires_in == 172800
    assert post("stop").desired == "stopped"
    services.environment_move(row.pk, State.STOPPING)
    services.environment_move(row.pk, State.STOPPED)
    assert post("rename", name="sweep-2").name == "sweep-2"
    assert post("start").state == "queued"
    assert post("delete", purge="on").desired == "deleted"
    assert row.purge


@pytest.mark.parametrize(
    ("verb", "fields", "said"),
    [
        ("scale", {"workers": "-3"}, "minimum"),
        ("scale", {"workers": "ten"}, "whole number"),
        ("extend", {"expires_in": "999999999"}, "999999999"),
        ("rename", {"name": "No Good"}, "Not a name"),
        ("rename", {"name": "sweep-2"}, "stop it before renaming"),
        ("start", {}, "already"),
        ("retry", {}, "only a failed environment"),
    ],
)
def test_a_refused_verb_changes_nothing_and_says_why(verb: str, fields: dict[str, str], said: str, world: World, client_of: Callable[[User], Client]) -> None:
    row = launch(world.alice, "sweep", "dask", workers=2)
    run_cluster(row)
    row.refresh_from_db()
    response = client_of(world.alice).post(reverse(f"environment_{verb}", args=[row.pk]), fields, follow=True)
    assert said in response.content.decode()
    after = Environment.objects.get(pk=row.pk)
    assert after.desired_generation == row.desired_generation


def test_a_kept_volume_is_shown_and_can_be_purged(world: World, client_of: Callable[[User], Client]) -> None:
    row = launch(world.alice, "train")
    run_notebook(row)
    client = client_of(world.alice)
    assert b"Kept home volumes" not in client.get("/").content
    services.environment_delete(actor=world.alice, environment_id=row.pk)
    services.environment_move(row.pk, State.DELETING)
    services.environment_move(row.pk, State.DELETED)
    assert b"Kept home volumes" in client.get("/").content
    row.refresh_from_db()
    client.post(reverse("volume_purge", args=[row.volume_id]))
    assert row.volume is not None
    row.volume.refresh_from_db()
    assert row.volume.purge_requested_at
    assert b"Kept home volumes" not in client.get("/").content


def test_a_token_is_shown_once_and_never_again(world: World, client_of: Callable[[User], Client]) -> None:
    client = client_of(world.alice)
    made = client.post("/tokens/", {"name": "ci runs", "scopes": ["environments:read"], "expires_in": "86400"})
    plaintext = made.context["plaintext"]
    assert plaintext.encode() in made.content
    assert "no-store" in made["Cache-Control"]
    again = client.get("/tokens/")
    assert b"ci runs" in again.content
    assert plaintext.encode() not in again.content
    row = ApiToken.objects.get()
    assert client.post(reverse("token_revoke", args=[row.pk])).status_code == 302
    row.refresh_from_db()
    assert row.revoked_at
    assert b"ci runs" not in client.get("/tokens/").content


@pytest.mark.parametrize("fields", [{"name": ""}, {"scopes": []}, {"scopes": ["everything"]}, {"expires_in": "1"}])
def test_a_token_that_is_not_right_is_refused_at_its_field(fields: dict[str, object], world: World, client_of: Callable[[User], Client]) -> None:
    response = client_of(world.alice).post("/tokens/", {"name": "ci runs", "scopes": ["environments:read"], "expires_in": "86400", **fields})
    assert response.status_code == 422
    [wrong] = fields
    assert response.context["form"].errors[wrong]
    assert not ApiToken.objects.exists()


def test_the_quota_page_shows_team_and_own_limits_and_simulated_accelerators(world: World, client_of: Callable[[User], Client]) -> None:
    launch(world.alice, "train")
    text = client_of(world.alice).get("/quotas/").content.decode()
    assert "1 of 8" in text
    assert "1 of 5" in text
    assert "NVIDIA A100 80 GB" in text
    assert "simulated" in text


def test_pages_come_in_chinese(world: World, compiled_catalogue: None, client_of: Callable[[User], Client]) -> None:
    client = client_of(world.alice)
    text = client.get("/", headers={"Accept-Language": "zh-CN,zh;q=0.9"}).content.decode()
    assert '<html lang="zh-Hans">' in text
    assert "我的环境" in text
    client.post(reverse("set_language"), {"language": "zh-hans", "next": "/launch/"})
    assert "你想运行什么？" in client.get("/launch/").content.decode()


def test_an_unknown_address_has_a_page_of_its_own(world: World, client_of: Callable[[User], Client]) -> None:
    response = client_of(world.alice).get("/no/such/page")
    assert response.status_code == 404
    assert b"There is no such page" in response.content
