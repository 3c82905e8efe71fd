"""Every text of the pages that wants translating, read from the templates and the Python code; the catalogues are checked against it."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

KEYWORDS = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
    "pgettext": ((1, "c"), 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext": ((1, "c"), 2, 3),
}
ROOMS = ("portal/web", "portal/identity", "portal/live", "portal/domain")


def catalogue_path(root: Path, locale: str) -> Path:
    return root / "locale" / locale / "LC_MESSAGES" / "django.po"


def extracted(root: Path, locale: str = "zh_Hans") -> Catalog:
    """A catalogue without translations of everything in the code and templates under `root`."""
    catalog = Catalog(locale=locale, project="Atelier", charset="utf-8", fuzzy=False)
    for path, source in _sources(root):
        for line, message, comments, context in extract("python", BytesIO(source.encode()), KEYWORDS, ("Translators:",), {"encoding": "utf-8"}):
            catalog.add(message, None, [(path, line)], auto_comments=comments, context=context)
    return catalog


def _sources(root: Path) -> Iterator[tuple[str, str]]:
    """Path and Python text of everything that may hold messages; a template becomes calls of gettext."""
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((root / "templates").rglob("*.html")):
        name = path.relative_to(root).as_posix()
        # text between tags comes out as words of X at its old indentation, which the tokenizer would take for blocks
        yield name, "\n".join(line.strip() for line in templatize(path.read_text(encoding="utf-8"), origin=name).splitlines())


def read(path: Path, locale: str) -> Catalog:
    """The translations on disk; an empty catalogue when there are none yet."""
    if not path.exists():
        return Catalog(locale=locale, charset="utf-8")
    with path.open("rb") as file:
        return read_po(file, locale=locale)


def update(root: Path, locale: str = "zh_Hans") -> Catalog:
    """Bring the catalogue on disk in line with the code: new texts come in untranslated, those no longer used go."""
    path = catalogue_path(root, locale)
    catalog = read(path, locale)
    catalog.header_comment, catalog.project, catalog.version = "# Texts of Atelier's pages.", "Atelier", "1"
    catalog.update(extracted(root, locale), no_fuzzy_matching=True)
    catalog.obsolete.clear()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalog, width=160, omit_header=False, sort_output=True, include_lineno=False, ignore_obsolete=True)
    return catalog
