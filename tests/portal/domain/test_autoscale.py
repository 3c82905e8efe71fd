"""Scaling by itself: the pure rule, and what the verbs make of samples."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.catalogue.validator import faults_of
from portal.domain import autoscale, selectors, services
from portal.domain.autoscale import Rule, decide, wanted
from portal.domain.errors import Conflict, NotFound
from portal.domain.models import Environment, Event, Template
from tests.portal.world import World

MINUTE = timedelta(minutes=1)
BEGIN = datetime(2026, 11, 25, 8, tzinfo=UTC)
RULE = Rule(metric="cpu", target=50, least=1, most=8, up_after=MINUTE, down_after=10 * MINUTE)
DOCUMENT = {"metric": "cpu", "target": 50, "min": 1, "max": 8, "up_after": "1m", "down_after": "10m"}


@pytest.mark.parametrize(
    ("workers", "load", "expected"),
    [(2, 50, 2), (2, 54, 2), (2, 46, 2), (2, 56, 3), (2, 100, 4), (4, 100, 8), (8, 100, 8), (8, 12, 2), (4, 0, 1), (0, 0, 1), (1, 500, 8), (3, 50.000001, 3)],
)
def test_as_many_as_bring_each_to_the_target(workers: int, load: float, expected: int) -> None:
    assert wanted(RULE, workers, load) == expected


def through(samples: Iterable[tuple[float, float]], workers: int = 2, rule: Rule = RULE) -> list[int]:
    """Numbers asked for after each sample (minutes since the beginning, load of each worker); a number that is asked for is given at once."""
    kept: dict[str, Any] = {}
    asked = []
    for minute, load in samples:
        workers, kept = decide(rule, workers, load, kept, BEGIN + minute * MINUTE)
        asked.append(workers)
    return asked


def test_more_come_when_it_has_been_so_for_a_while() -> None:
    assert through([(0, 100), (0.5, 100), (1, 100)]) == [2, 2, 4]
    assert through([(0, 100), (0.5, 40), (1, 100), (1.5, 100)]) == [2, 2, 2, 2], "not while a sample within the time says otherwise"
    assert through([(0, 100), (0.5, 90), (1, 200)])[-1] == 4, "and no more than all of them want"


def test_fewer_come_only_when_nobody_wanted_as_many_for_longer() -> None:
    quiet = [(minute, 5.0) for minute in range(11)]
    assert through(quiet, workers=6) == [6] * 10 + [1]
    assert through([*quiet[:5], (5, 50.0), *quiet[6:]], workers=6) == [6] * 11


def test_after_a_gap_or_another_number_it_begins_anew() -> None:
    assert through([(0, 100), (30, 100)]) == [2, 2]
    _, kept = decide(RULE, 2, 100, {}, BEGIN)
    assert decide(RULE, 3, 100, kept, BEGIN + 2 * MINUTE)[0] == 3, "what was measured of two says nothing of three"


@given(st.lists(st.tuples(st.floats(0.1, 3), st.floats(0, 1000)), max_size=40), st.integers(0, 12))
def test_it_stays_within_its_bounds_and_remembers_little(steps: list[tuple[float, float]], workers: int) -> None:
    kept: dict[str, Any] = {}
    moment = BEGIN
    for gap, load in steps:
        moment += gap * MINUTE
        count, kept = decide(RULE, workers, load, kept, moment)
        assert count == workers or RULE.least <= count <= RULE.most
        assert all(datetime.fromisoformat(text) >= moment - RULE.down_after for text in kept["wanted"])
        workers = count


def test_a_constant_load_comes_to_rest() -> None:
    """The work that there is, spread over however many there are."""
    workers, kept, seen = 1, {}, []
    for sample in range(200):
        workers, kept = decide(RULE, workers, 180 / workers, kept, BEGIN + sample * MINUTE / 2)
        seen.append(workers)
    assert seen[-100:] == [4] * 100


# --- the verbs -------------------------------------------------------------------


@pytest.fixture
def elastic(world: World) -> Environment:
    template = Template.objects.get(slug="dask")
    Template.objects.filter(pk=template.pk).update(spec=template.spec | {"autoscale": DOCUMENT})
    return world.running(name="grid", template="dask", params={"workers": 2})


def after_a_while(environment: Environment, load: float, minutes: int = 2) -> str:
    outcome = ""
    for half in range(minutes * 2 + 1):
        outcome = services.environment_autoscale(environment.pk, load, BEGIN + half * MINUTE / 2)
        if outcome in ("scaled", "refused"):
            break
    environment.refresh_from_db()
    return outcome


def codes(environment: Environment) -> list[str]:
    return list(Event.objects.filter(environment=environment).order_by("seq").values_list("code", flat=True))


@pytest.mark.django_db
def test_it_is_off_until_somebody_turns_it_on_and_then_keeps_the_books(world: World, elastic: Environment) -> None:
    assert after_a_while(elastic, 100) == ""
    assert selectors.environments_that_scale() == []
    services.environment_autoscale_set(actor=world.alice, environment_id=elastic.pk, on=True)
    assert [row.pk for row in selectors.environments_that_scale()] == [elastic.pk]
    before = world.used("cpu")
    assert after_a_while(elastic, 100) == "scaled"
    assert elastic.workers == elastic.params["workers"] == 4
    assert world.used("cpu") == before + 2000
    told = Event.objects.get(environment=elastic, code="Autoscaled").message
    assert told == "4 workers instead of 2: CPU use of each worker is 100 % where 50 % is aimed at."
    assert not services.quota_recompute()


@pytest.mark.django_db
def test_what_quota_refuses_is_told_once_for_each_number(world: World, elastic: Environment) -> None:
    services.environment_autoscale_set(actor=world.alice, environment_id=elastic.pk, on=True)
    world.limit("cpu", world.used("cpu") + 500)
    assert [after_a_while(elastic, 100) for _ in range(3)] == ["refused"] * 3
    assert elastic.workers == 2
    told = Event.objects.filter(environment=elastic, code="AutoscaleRefused")
    assert told.count() == 1
    assert "Team vision may use" in told.get().message
    world.limit("cpu", None)
    assert after_a_while(elastic, 100) == "scaled"


@pytest.mark.django_db
def test_who_scales_by_hand_turns_it_off(world: World, elastic: Environment) -> None:
    services.environment_autoscale_set(actor=world.alice, environment_id=elastic.pk, on=True)
    services.environment_scale(actor=world.alice, environment_id=elastic.pk, workers=3)
    elastic.refresh_from_db()
    assert not autoscale.is_on(elastic.template_spec, elastic.autoscale)
    assert after_a_while(elastic, 100) == ""


@pytest.mark.django_db
def test_outsiders_and_templates_without_a_rule_are_refused(world: World, elastic: Environment) -> None:
    with pytest.raises(NotFound):
        services.environment_autoscale_set(actor=world.charlie, environment_id=elastic.pk, on=True)
    notebook = world.running(name="nb")
    with pytest.raises(Conflict, match="has no rule"):
        services.environment_autoscale_set(actor=world.alice, environment_id=notebook.pk, on=True)
    assert codes(notebook)[-1] != "AutoscaleSet"


# --- the catalogue ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"min": 9}, "autoscale.min"),
        ({"max": 99}, "autoscale.max"),
        ({"min": 0}, "autoscale.min"),
        ({"metric": "query"}, "autoscale.query"),
        ({"query": "up"}, "autoscale.query"),
        ({"target": 0}, "autoscale.target"),
        ({"up_after": "soon"}, "autoscale.up_after"),
    ],
)
@pytest.mark.django_db
def test_a_wrong_rule_names_its_field(world: World, change: dict[str, Any], field: str) -> None:
    spec = Template.objects.get(slug="dask").spec
    assert not faults_of("template", spec | {"autoscale": DOCUMENT})
    assert field in [fault.field for fault in faults_of("template", spec | {"autoscale": DOCUMENT | change})]


def test_a_template_without_a_role_that_scales_cannot_have_one() -> None:
    document = {"slug": "x", "version": 1, "kind": "cluster", "title": {"en": "X"}, "roles": [{"name": "a", "image": "i"}], "autoscale": DOCUMENT}
    assert [fault.field for fault in faults_of("template", document)] == ["autoscale"]
