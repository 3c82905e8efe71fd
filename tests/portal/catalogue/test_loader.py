"""The catalogue's files: what is wrong is told with file, line and field, and nothing is half loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from portal.catalogue.loader import BUILTIN, CatalogueError, load
from portal.domain import services
from portal.domain.models import Accelerator, Flavor, Priority, Quota, Team, Template

DASK = yaml.safe_load((BUILTIN / "templates" / "dask.yaml").read_text())


def write(folder: Path, kind: str, text: str, name: str = "x.yaml") -> Path:
    file = folder / kind / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def faults(folder: Path) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        load([BUILTIN, folder])
    return caught.value.faults


def test_the_builtin_catalogue_loads_and_again_changes_nothing(db: None) -> None:
    load()
    before = list(Flavor.objects.values()), list(Accelerator.objects.values()), list(Template.objects.values())
    load()
    assert before == (list(Flavor.objects.values()), list(Accelerator.objects.values()), list(Template.objects.values()))
    assert {"cpu-small", "gpu-1", "a100-1", "ascend910-1"} <= set(Flavor.objects.values_list("slug", flat=True))
    small = Flavor.objects.get(slug="cpu-small")
    assert (small.cpu_millis, small.memory_bytes) == (1000, 2 * 2**30)


def test_a_disabled_entry_stays_disabled_when_the_files_are_loaded_again(db: None) -> None:
    load()
    Template.objects.filter(slug="dask").update(enabled=False, position=999)
    load()
    dask = Template.objects.get(slug="dask")
    assert (dask.enabled, dask.position) == (False, 20)


def test_every_team_gets_a_quota_row_of_zero_for_a_new_accelerator(db: None) -> None:
    team = services.team_create(actor=None, slug="vision", name="Vision")
    load()
    assert Quota.objects.get(team=team, resource="accelerator:ascend-910").limit == 0
    Quota.objects.filter(team=team, resource="accelerator:ascend-910").update(limit=4)
    load()
    assert Quota.objects.get(team=team, resource="accelerator:ascend-910").limit == 4


def test_a_fault_is_told_with_file_line_and_field_and_nothing_is_loaded(db: None, tmp_path: Path) -> None:
    file = write(tmp_path, "flavors", "slug: big\ntitle: {en: Big}\ncpu: lots\nmemory: 2Gi\n")
    write(tmp_path, "accelerators", "slug: fine\ntitle: {en: Fine}\nfamily: gpu\nresource_key: example.com/fine\n")
    assert faults(tmp_path) == [f"{file}:3: cpu: 'lots' is not a CPU quantity such as 500m or 2"]
    assert not Accelerator.objects.exists()
    assert not Flavor.objects.exists()


def test_all_faults_of_all_files_are_told_at_once(db: None, tmp_path: Path) -> None:
    one = write(tmp_path, "flavors", "slug: Big\ntitle: {zh-hans: 大}\ncpu: 1\nmemory: 1Gi\n", "one.yaml")
    two = write(tmp_path, "accelerators", "slug: a\ntitle: {en: A}\nfamily: quantum\nresource_key: gpu\nextra: 1\n", "two.yaml")
    three = write(tmp_path, "templates", "slug: [\n", "three.yaml")
    found = "\n".join(faults(tmp_path))
    for part in (f"{one}:1: slug:", f"{one}:2: title:", f"{two}:3: family:", f"{two}:4: resource_key:", f"{two}:1: (document):", f"{three}:2: not readable:"):
        assert part in found, found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: (document): None is not of type 'object'"),
        ("- a\n", ":1: (document):"),
        ("slug: a\nslug: b\n", ":2: not readable: the key 'slug' is given twice"),
        ("slug: !!python/object/apply:os.system [ls]\n", ":1: not readable: could not determine a constructor"),
        ("slug: f\ntitle: {en: F}\ncpu: 1\nmemory: 1Gi\naccelerator: nope\naccelerator_count: 1\n", ":5: accelerator: there is no accelerator 'nope'"),
        ("slug: f\ntitle: {en: F}\ncpu: 1\nmemory: 1Gi\naccelerator: nvidia-gpu\n", ":5: accelerator: accelerator and accelerator_count go together"),
        ("slug: f\ntitle: {en: F}\ncpu: 0\nmemory: -1Gi\n", ":3: cpu: must be more than nothing"),
        ("slug: cpu-small\ntitle: {en: F}\ncpu: 1\nmemory: 1Gi\n", ":1: slug: cpu-small is already in"),
    ],
)
def test_a_bad_flavor_file_is_refused(db: None, tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path, "flavors", text)
    assert any(fault.startswith(f"{file}{says}") for fault in faults(tmp_path)), faults(tmp_path)


def changed(*path: Any, to: Any = None) -> dict[str, Any]:
    """The Dask template with one value changed (None: taken out), as a template of its own."""
    document = yaml.safe_load(yaml.safe_dump(DASK)) | {"slug": "mine"}
    place = document
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return document


@pytest.mark.parametrize(
    ("document", "field", "says"),
    [
        (changed("kind", to="robot"), "kind", "robot"),
        (changed("version", to=0), "version", "minimum"),
        (changed("expires_in", to="soon"), "expires_in", "not a span of time"),
        (changed("max_expires_in", to="1h"), "expires_in", "longer than max_expires_in"),
        (changed("warn_before", to="soon"), "warn_before", "not a span of time"),
        (changed("warn_before", to="30s"), "warn_before", "at least 1m"),
        (changed("warn_before", to="8h"), "warn_before", "not shorter than expires_in"),
        (changed("delete_after", to="10m"), "delete_after", "at least 1h, or 0s for never"),
        (changed("idle", "after", to="never"), "idle.after", "not a span of time"),
        (changed("idle", "after", to="1m"), "idle.after", "at least 5m"),
        (changed("idle", "warn", to="2h"), "idle.warn", "not shorter than idle.after"),
        (changed("idle", "after"), "idle", "'after' is a required property"),
        (changed("idle", "cpu_percent", to=0), "idle.cpu_percent", "minimum"),
        (changed("params", "additionalProperties"), "params", "additionalProperties: false"),
        (changed("params", "properties", "workers", "type", to="interger"), "params.properties.workers.type", "not a JSON Schema"),
        (changed("params", "properties", "workers", "default", to=99), "params.properties.workers.default", "maximum"),
        (changed("params", "properties", "workers", "maximum"), "roles[1].replicas.param", "a minimum and a maximum"),
        (changed("roles", 1, "replicas", to={"param": "wrokers"}), "roles[1].replicas.param", "no parameter 'wrokers'"),
        (changed("roles", 1, "name", to="scheduler"), "roles[1].name", "another role called scheduler"),
        (changed("roles", 0, "readiness", "port", to="http"), "roles[0].readiness.port", "no port 'http'"),
        (changed("roles", 0, "resources", "memory", to="lots"), "roles[0].resources.memory", "not a quantity"),
        (changed("roles", 0, "command", to=["dask", 5]), "roles[0].command[1]", "not of type 'string'"),
        (changed("roles", 1, "args", 0, to="tcp://${roles.head.host}:8786"), "roles[1].args[0]", "no variable ${roles.head.host}"),
        (changed("connect", "snippet", to="x = ${params.nope}"), "connect.snippet", "no variable ${params.nope}"),
        (changed("roles", 0, "ports", 1, "name", to="comm"), "roles[0].ports[1].name", "another port called comm"),
        (changed("kind", to="notebook"), "roles", "exactly one role, named notebook"),
    ],
)
def test_a_bad_template_is_refused_naming_the_field_at_its_line(db: None, tmp_path: Path, document: dict[str, Any], field: str, says: str) -> None:
    text = yaml.safe_dump(document, sort_keys=False)
    file = write(tmp_path, "templates", text)
    found = [fault for fault in faults(tmp_path) if f": {field}: " in fault]
    assert found, faults(tmp_path)
    assert says in found[0]
    line = int(found[0].removeprefix(f"{file}:").split(":")[0])
    last = field.rsplit(".", 1)[-1].split("[")[0]
    assert last in text.splitlines()[line - 1] or "[" in field, (line, text.splitlines()[line - 1])


def test_the_dask_template_under_another_slug_is_fine(db: None, tmp_path: Path) -> None:
    write(tmp_path, "templates", yaml.safe_dump(changed("version", to=7)))
    assert load([BUILTIN, tmp_path])["template"] == len(list((BUILTIN / "templates").glob("*.yaml"))) + 1
    assert Template.objects.get(slug="mine").spec["version"] == 7


def test_the_command_names_the_faults_and_fails(db: None, tmp_path: Path) -> None:
    file = write(tmp_path, "flavors", "slug: x\n")
    with pytest.raises(CommandError, match=f"{file}:1:"):
        call_command("load_catalogue", str(tmp_path))
    with pytest.raises(CommandError, match="no such folder"):
        call_command("load_catalogue", str(tmp_path / "nope"))
    call_command("load_catalogue", verbosity=0)
    assert Template.objects.count() == len(list((BUILTIN / "templates").glob("*.yaml")))


def test_priorities_are_loaded_and_their_teams_are_the_admins(db: None, tmp_path: Path) -> None:
    write(tmp_path, "priorities", "slug: deadline\ntitle: {en: Deadline}\nvalue: 70\neveryone: false\npreempts: true\n")
    load([BUILTIN, tmp_path])
    rows = {row.slug: (row.value, row.everyone, row.leads_only, row.preempts) for row in Priority.objects.all()}
    assert rows == {
        "low": (10, True, False, False),
        "normal": (50, True, False, False),
        "high": (90, True, True, True),
        "deadline": (70, False, False, True),
    }
    Priority.objects.get(slug="deadline").teams.add(Team.objects.create(slug="vision", name="Vision"))
    Priority.objects.filter(slug="deadline").update(value=1)
    load([BUILTIN, tmp_path])
    deadline = Priority.objects.get(slug="deadline")
    assert (deadline.value, [team.slug for team in deadline.teams.all()]) == (70, ["vision"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slug: p\ntitle: {en: P}\nvalue: high\n", ":3: value: 'high' is not of type 'integer'"),
        ("slug: p\ntitle: {en: P}\n", ":1: (document): 'value' is a required property"),
        ("slug: p\ntitle: {en: P}\nvalue: 1\npreemts: true\n", ":1: (document): Additional properties"),
        (f"slug: {'p' * 41}\ntitle: {{en: P}}\nvalue: 1\n", ":1: slug: longer than 40 characters"),
        ("slug: high\ntitle: {en: P}\nvalue: 1\n", ":1: slug: high is already in"),
    ],
)
def test_a_bad_priority_file_is_refused(db: None, tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path, "priorities", text)
    assert any(fault.startswith(f"{file}{says}") for fault in faults(tmp_path)), faults(tmp_path)


@pytest.mark.parametrize(
    ("scheduling", "field", "says"),
    [
        ({"topology": {"level": "rack"}}, "scheduling.topology", "'mode' is a required property"),
        ({"topology": {"level": "rack", "mode": "must"}}, "scheduling.topology.mode", "'must' is not one of"),
        ({"preemptible": True, "preempt_grace": "soon"}, "scheduling.preempt_grace", "not a span of time"),
        ({"preempt_grace": "5m"}, "scheduling.preempt_grace", "says nothing without"),
        ({"topolgy": {}}, "scheduling", "Additional properties"),
    ],
)
def test_a_template_with_a_wrong_scheduling_block_is_refused(db: None, tmp_path: Path, scheduling: dict[str, Any], field: str, says: str) -> None:
    write(tmp_path, "templates", yaml.safe_dump(changed("scheduling", to=scheduling), sort_keys=False))
    (fault,) = faults(tmp_path)
    assert f" {field}: " in fault
    assert says in fault


def test_a_template_may_name_a_level_that_this_installation_does_not_know(db: None, tmp_path: Path) -> None:
    document = changed("scheduling", to={"topology": {"level": "rack", "mode": "required"}, "preemptible": True, "preempt_grace": "5m"})
    write(tmp_path, "templates", yaml.safe_dump(document, sort_keys=False))
    load([BUILTIN, tmp_path])
    assert Template.objects.get(slug="mine").spec["scheduling"]["preemptible"]


def test_priorities_are_kept_in_the_admin_by_the_same_rules(admin_client: Any) -> None:
    load()
    page = "/admin/domain/priority/add/"
    wrong = admin_client.post(page, {"slug": "rush", "title": '{"zh-hans": "急"}', "value": 80})
    assert "is a required property" in wrong.content.decode().replace("&#x27;", "'")
    assert not Priority.objects.filter(slug="rush").exists()
    answer = admin_client.post(page, {"slug": "rush", "title": '{"en": "Rush"}', "value": 80, "everyone": "on"})
    assert answer.status_code == 302, answer.content.decode()
    rush = Priority.objects.get(slug="rush")
    assert (rush.value, rush.everyone, rush.preempts) == (80, True, False)
    admin_client.post(f"/admin/domain/priority/{rush.pk}/change/", {"slug": "other", "title": '{"en": "Rush"}', "value": 70})
    rush.refresh_from_db()
    assert (rush.slug, rush.value, rush.everyone) == ("rush", 70, False)
