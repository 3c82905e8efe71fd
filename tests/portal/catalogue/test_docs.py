"""The documents that docs/adding-a-template.md shows are what the loader takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from portal.catalogue.validator import faults_of
from portal.runtime import ROOT

BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "adding-a-template.md").read_text(), re.DOTALL)]
WHOLE = [block for block in BLOCKS if "slug" in block]


@pytest.mark.parametrize("document", WHOLE, ids=lambda document: document["slug"])
def test_a_whole_document_in_the_docs_has_no_fault(document: dict[str, Any]) -> None:
    kind = "template" if "roles" in document else "accelerator" if "family" in document else "storage"
    # what its references need is there
    assert faults_of(kind, document, {"flavor": ["cpu-large"], "priority": ["normal"]}) == []


def test_there_is_one_of_each() -> None:
    assert len(WHOLE) == 3
