"""docs/catalogue.md says what the catalogue and the tests say."""

from __future__ import annotations

from pathlib import Path

from portal.catalogue.table import documents, page, runs_in
from portal.runtime import ROOT


def test_the_page_is_up_to_date() -> None:
    made = page(documents(), runs_in(ROOT / "tests"))
    assert (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8") == made, "manage.py catalogue_table > docs/catalogue.md"


def test_what_tests_run_is_in_the_catalogue() -> None:
    known = {f"{document.kind}:{document.data['slug']}" for document in documents()}
    assert set(runs_in(ROOT / "tests")) <= known


def test_marks_are_found_wherever_a_test_stands(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_x.py").write_text(
        "import pytest\n\n@pytest.mark.runs('template:a', 'flavor:b')\ndef test_one(): ...\n\n"
        "class TestMore:\n    @pytest.mark.runs('template:a')\n    async def test_two(self): ...\n\n@pytest.mark.slow('template:c')\ndef test_three(): ...\n"
    )
    assert runs_in(folder) == {"template:a": ["tests/test_x.py::test_one", "tests/test_x.py::test_two"], "flavor:b": ["tests/test_x.py::test_one"]}
