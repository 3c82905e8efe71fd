"""The real application against its own OpenAPI document: no input leads to a server error or to an answer that is not documented."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from portal.domain import services
from portal.domain.models import User
from tests.portal.world import World

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
def app_schema(world: World) -> Any:
    environment = world.running()  # so that ids in the path lead somewhere now and then
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", get_wsgi_application())
    schema.environment_id = str(environment.pk)
    return schema


schema = schemathesis.pytest.from_fixture("app_schema")


@schema.exclude(path_regex="/logs$").parametrize()  # it streams: see the tests of portal.live
@hypothesis_settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
def test_every_answer_is_documented(case: Any, app_schema: Any) -> None:
    alice = User.objects.get(username="alice")
    token = services.token_create(actor=alice, name="x", scopes=["environments:write", "tokens"], expires_in=timedelta(hours=1))[1]
    if "environment_id" in case.path_parameters:
        case.path_parameters["environment_id"] = app_schema.environment_id
    case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)
    alice.api_tokens.all().delete()  # a token a case, and there is a limit
