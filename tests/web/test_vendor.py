"""Vendored front-end files are what their manifest says, each folder with its licence."""

from __future__ import annotations

import re
from hashlib import sha256

from portal.runtime import ROOT

VENDOR = ROOT / "static" / "vendor"


def test_every_vendored_file_has_the_checksum_of_the_manifest() -> None:
    listed = dict(reversed(line.split("  ", 1)) for line in (VENDOR / "MANIFEST.sha256").read_text().splitlines())
    # folders of other rooms keep a manifest of their own
    own = {path.parent for path in VENDOR.rglob("MANIFEST.sha256")} - {VENDOR}
    found = {
        f"./{path.relative_to(VENDOR).as_posix()}": sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name not in ("MANIFEST.sha256", "README.md") and not any(folder in path.parents for folder in own)
    }
    assert found == listed


def test_every_vendored_folder_has_a_licence() -> None:
    for folder in VENDOR.iterdir():
        if folder.is_dir():
            assert "ermission" in (folder / "LICENSE").read_text(), folder.name


def test_every_icon_that_a_page_names_is_vendored() -> None:
    named = set()
    for path in (ROOT / "templates").rglob("*.html"):
        named |= set(re.findall(r'{% icon "([a-z0-9-]+)"', path.read_text()))
        named |= set(re.findall(r'icon(?:_name)?="([a-z0-9-]+)"', path.read_text()))
    assert named
    missing = {name for name in named if not (VENDOR / "tabler-icons" / f"{name}.svg").is_file()}
    assert not missing


def test_no_page_has_inline_scripts_or_handlers() -> None:
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", text), path
        assert not re.search(r"<[^>]*\son[a-z]+\s*=", text), path
        assert "hx-on" not in text, path
        assert "javascript:" not in text, path
