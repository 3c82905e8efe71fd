"""Sentences the portal itself writes into events and steps, so that pages can show them in the reader's language.

The database keeps the English sentence: programs read it through the API, and one row serves every reader.
"""

from __future__ import annotations

from django.utils.translation import gettext

PHRASES: frozenset[str] = frozenset()


def known(text: str) -> str:
    """`text` translated when it is one of the portal's own sentences, else as it is."""
    return gettext(text) if text in PHRASES else text
