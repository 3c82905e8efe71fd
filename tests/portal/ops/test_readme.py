"""The README's settings table and room map, held to the code."""

import re

from portal.runtime import ROOT

README = (ROOT / "README.md").read_text()


def settings_read() -> set[str]:
    return set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "portal" / "settings.py").read_text()))


def settings_listed() -> set[str]:
    table = README.split("## Settings", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    assert settings_read() == settings_listed()


def test_every_room_of_the_map_exists() -> None:
    table = README.split("## Rooms", 1)[1].split("\n## ", 1)[0]
    rooms = re.findall(r"`([a-z0-9_/]+/)`", table)
    assert len(rooms) > 10
    assert [room for room in rooms if not (ROOT / room).is_dir() and not (ROOT / "tests" / room).is_dir()] == []


def test_every_linked_document_exists() -> None:
    links = re.findall(r"\]\(((?:docs/|[A-Z])[^)]+)\)", README)
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^    make ([a-z]+)", README, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert targets >= {"up", "test", "demo", "bench"}
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
