"""Versions of templates: kept under their numbers, redirected to later ones, refused where a number says two things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from portal.catalogue.loader import CatalogueError, load
from portal.domain import selectors, services
from portal.domain.errors import Conflict
from portal.domain.models import Accelerator, Environment, Flavor, Priority, Template, TemplateVersion, User

FLAVOR = "slug: tiny\ntitle: {en: Tiny}\ncpu: 1\nmemory: 1Gi\n"


def document(version: int = 1, **changes: Any) -> dict[str, Any]:
    base = {"slug": "sleep", "version": version, "kind": "cluster", "title": {"en": f"Sleep {version}"}, "roles": [{"name": "main", "image": "sleeper:1"}]}
    return base | changes


def put(folder: Path, *documents: dict[str, Any]) -> None:
    for each in documents:
        file = folder / "templates" / f"{each['slug']}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(each, sort_keys=False))
        load([folder])


def faults(folder: Path) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        load([folder])
    return caught.value.faults


def chain() -> dict[int, int | None]:
    return dict(TemplateVersion.objects.filter(template__slug="sleep").values_list("version", "replaced_by"))


def test_each_number_is_kept_and_the_highest_is_what_can_be_asked_for(db: None, tmp_path: Path) -> None:
    put(tmp_path, document(2), document(5), document(3))
    assert chain() == {2: None, 3: None, 5: None}
    template = Template.objects.get(slug="sleep")
    assert (template.version, template.title) == (5, {"en": "Sleep 5"})
    assert template.versions.get(version=2).source.startswith("slug: sleep\nversion: 2\n")


def test_the_same_number_may_be_loaded_again_but_not_with_other_words(db: None, tmp_path: Path) -> None:
    put(tmp_path, document(4), document(4))
    file = tmp_path / "templates" / "sleep.yaml"
    file.write_text("# only a comment, and another order of keys\n" + yaml.safe_dump(document(4), sort_keys=True))
    load([tmp_path])
    file.write_text(yaml.safe_dump(document(4, icon="moon"), sort_keys=False))
    assert faults(tmp_path) == [f"{file}:2: version: version 4 is known already and says something else; raise it to 5"]
    assert Template.objects.get(slug="sleep").icon == ""
    put(tmp_path, document(5, icon="moon"))
    assert Template.objects.get(slug="sleep").icon == "moon"


def test_a_kind_stays_what_it_was(db: None, tmp_path: Path) -> None:
    put(tmp_path, document(1))
    roles = [{"name": "notebook", "image": "n:1"}]
    (tmp_path / "templates" / "sleep.yaml").write_text(yaml.safe_dump(document(2, kind="notebook", roles=roles), sort_keys=False))
    (fault,) = faults(tmp_path)
    assert ":3: kind: sleep is a cluster" in fault


def test_replacements_are_followed_in_whatever_order_they_were_loaded(db: None, tmp_path: Path) -> None:
    put(tmp_path, document(1), document(3, replaces=[1]), document(6, replaces=[3]), document(2, replaces=[1]))
    assert chain() == {1: 3, 2: None, 3: 6, 6: None}
    put(tmp_path, document(4), document(7, replaces=[2, 4]), document(5))
    known = selectors.redirects()
    template = Template.objects.get(slug="sleep")
    ends = {version: selectors.next_version(Environment(template=template, template_version=version), known) for version in range(1, 8)}
    assert ends[1] == ends[3] == 6
    assert ends[2] == ends[4] == 7
    assert ends[5] is ends[6] is ends[7] is None


@pytest.mark.parametrize("replaced", [3, 9])
def test_a_version_replaces_neither_itself_nor_a_later_one(db: None, tmp_path: Path, replaced: int) -> None:
    put(tmp_path, document(1))
    file = tmp_path / "templates" / "sleep.yaml"
    file.write_text(yaml.safe_dump(document(3, replaces=[1, replaced]), sort_keys=False))
    (fault,) = faults(tmp_path)
    assert f"replaces[1]: version {replaced} is not older than this one, 3" in fault
    assert chain() == {1: None}


def test_the_database_itself_holds_no_circle(db: None, tmp_path: Path) -> None:
    put(tmp_path, document(1), document(2, replaces=[1]))
    with pytest.raises(IntegrityError), transaction.atomic():
        TemplateVersion.objects.filter(version=2).update(replaced_by=1)


def test_an_admin_redirects_versions_and_takes_that_back(db: None, tmp_path: Path) -> None:
    put(tmp_path, document(1), document(2, replaces=[1]), document(3))
    template, admin = Template.objects.get(slug="sleep"), User.objects.create(username="root", is_staff=True)
    assert services.template_redirect(actor=admin, template=template, versions=[1, 2], to=3) == 2
    assert chain() == {1: 3, 2: 3, 3: None}
    services.template_redirect(actor=admin, template=template, versions=[1], to=None)
    put(tmp_path, document(2, replaces=[1]))
    assert chain()[1] is None, "loading the files again leaves to the admin what the admin said"
    for versions, to in (([2], 2), ([1, 3], 2), ([1], 8)):
        with pytest.raises(Conflict):
            services.template_redirect(actor=admin, template=template, versions=versions, to=to)
    with pytest.raises(Conflict):
        services.template_redirect(actor=User.objects.create(username="alice"), template=template, versions=[1], to=3)


def everything() -> list[Any]:
    models = (Accelerator, Flavor, Priority, Template, TemplateVersion)
    return [list(model.objects.order_by("pk").values()) for model in models]  # type: ignore[attr-defined]


def test_a_fault_in_the_last_file_leaves_everything_as_it_was(db: None, tmp_path: Path) -> None:
    load()
    before = everything()
    for folder, text in (
        ("accelerators", "slug: chip\ntitle: {en: Chip}\nfamily: gpu\nresource_key: example.com/chip\n"),
        ("flavors", FLAVOR.replace("cpu: 1", "cpu: 1\naccelerator: chip\naccelerator_count: 1")),
        ("priorities", "slug: normal\ntitle: {en: Other}\nvalue: 51\n"),
        ("templates", yaml.safe_dump(document(1, flavors={"only": ["tin*"]}))),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.yaml").write_text(text)
    last = tmp_path / "templates" / "z.yaml"
    last.write_text(yaml.safe_dump(document(1, slug="other", flavors={"only": ["tin*", "huge-*"]}), sort_keys=False))
    (fault,) = faults(tmp_path)
    assert fault.startswith(f"{last}:")
    assert ": flavors.only[1]: 'huge-*' matches no flavor; there are a100-1, " in fault
    assert everything() == before
    last.write_text(yaml.safe_dump(document(1, slug="other", kind="cluster"), sort_keys=False))
    load([tmp_path], check=True)
    assert everything() == before, "--check changes nothing"
    load([tmp_path])
    assert Priority.objects.get(slug="normal").value == 51
    assert Flavor.objects.get(slug="tiny").accelerator == Accelerator.objects.get(slug="chip")


def test_what_only_the_database_refuses_leaves_everything_as_it_was_too(db: None, tmp_path: Path) -> None:
    """A number beyond the column is found when it is written, after other rows were."""
    for folder, text in (
        ("accelerators", "slug: chip\ntitle: {en: Chip}\nfamily: gpu\nresource_key: example.com/chip\n"),
        ("flavors", FLAVOR.replace("cpu: 1", f"cpu: {10**20}")),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.yaml").write_text(text)
    assert faults(tmp_path)[0].startswith(f"{tmp_path}/flavors/a.yaml:1: (document): could not be stored")
    assert not Accelerator.objects.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slug: s\nversion: 1\nkind: cluster\ntitle: {en: 2026-01-01}\nroles: []\n", ":4: title.en: 2026-01-01 is a date"),
        ("slug: s\n1: x\n", ":1: (document): the key 1 is not text"),
        ("slug: s\nroles: &r [*r]\n", ":2: roles[0]: holds itself"),
        ("slug: s\nposition: .nan\n", ":2: position: nan is not a number"),
        ('slug: "a\\0b"\n', ":1: slug: holds a NUL"),
        ("scheduling: {priority: rush}\n" + yaml.safe_dump(document(1)), "scheduling.priority: there is no priority 'rush'"),
        ("flavors: {families: [gpus]}\n" + yaml.safe_dump(document(1)), "flavors.families[0]: there is no family 'gpus'"),
        ("flavors: {not: [nope]}\n" + yaml.safe_dump(document(1)), "flavors.not[0]: 'nope' matches no flavor"),
    ],
)
def test_what_no_database_could_take_is_a_fault_at_its_line(db: None, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "x.yaml").write_text(text)
    assert any(says in fault for fault in faults(tmp_path)), faults(tmp_path)


def test_the_check_fails_with_the_faults(db: None, tmp_path: Path) -> None:
    (tmp_path / "flavors").mkdir()
    (tmp_path / "flavors" / "x.yaml").write_text(FLAVOR + "gpus: 3\n")
    with pytest.raises(CommandError, match=r"x\.yaml:1: .*gpus"):
        call_command("load_catalogue", str(tmp_path), "--check")


@pytest.mark.django_db(transaction=True)
def test_templates_that_were_there_before_versions_get_theirs() -> None:
    executor = MigrationExecutor(connection)
    latest = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "domain"]
    executor.migrate([("domain", "0004_pages_in_order")])
    try:
        apps = MigrationExecutor(connection).loader.project_state([("domain", "0004_pages_in_order")]).apps
        template = apps.get_model("domain", "Template").objects.create(slug="old", version=3, kind="cluster", spec={"version": 3})
        rows = {
            "owner": apps.get_model("domain", "User").objects.create(username="alice"),
            "team": apps.get_model("domain", "Team").objects.create(slug="vision", name="Vision"),
            "flavor": apps.get_model("domain", "Flavor").objects.create(slug="tiny", cpu_millis=1, memory_bytes=1),
        }
        for version in (1, 3):
            apps.get_model("domain", "Environment").objects.create(
                name=f"e{version}", kind="cluster", template=template, template_version=version, template_spec={"version": version, "mine": True}, **rows
            )
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(latest)
    kept = {row.version: row.spec for row in TemplateVersion.objects.all()}
    assert kept == {1: {"version": 1, "mine": True}, 3: {"version": 3}}
