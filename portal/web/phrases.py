"""Sentences that the domain and the observer write, so that pages can show them in the reader's language.

The database keeps the English sentence: programs read it through the API, and one row serves every reader. A sentence is recognised
by its pattern; the parts between are kept as they are. What is not known, such as a word of the cluster's own, stays English.
"""

from __future__ import annotations

import re
from functools import lru_cache

from django.utils.translation import get_language, gettext
from django.utils.translation import gettext_noop as _

PHRASES = (
    # events of the lifecycle
    _("Requested."),
    _("Waiting for approval."),
    _("Queued."),
    _("Being set up."),
    _("Running."),
    _("Being stopped."),
    _("Stopped. Its home volume, if it has one, is kept."),
    _("Being deleted."),
    _("Deleted."),
    _("Failed."),
    _("Requested from template %(template)s with flavor %(flavor)s."),
    _("%(who)s asked to start it."),
    _("%(who)s asked to stop it."),
    _("%(who)s asked to try again."),
    _("%(who)s asked to delete it."),
    _("%(who)s asked to delete it with its home volume."),
    _("%(who)s renamed it from %(before)s to %(after)s."),
    _("%(who)s asked for %(after)s workers instead of %(before)s."),
    _("%(who)s extended it to %(span)s from now."),
    _("Its time was over, so it is stopped. Start it again to go on; its home volume is kept."),
    # steps
    _("Quota reserved"),
    _("Admitted by the queue"),
    _("Placed on a node"),
    _("Home volume attached"),
    _("Network address given"),
    _("Image pulled"),
    _("Processes started"),
    _("Ready"),
    # what the observer says
    _("The notebook server is starting."),
    _("The notebook server is no longer there."),
    _("%(have)s of %(want)s replicas are ready."),
    _("Waiting for the cluster's queue to admit it."),
    # refusals
    _("You already have an environment called %(name)s in this team; choose another name or delete that one."),
    _("Choose between %(shortest)s and %(longest)s."),
    _("Team %(team)s may use %(limit)s; %(used)s in use, and this needs %(more)s more. The limit can be changed by %(who)s."),
    _("%(person)s in team %(team)s may use %(limit)s; %(used)s in use, and this needs %(more)s more. The limit can be changed by %(who)s."),
    _("Not a name: use 1 to 40 lower-case letters, digits and hyphens, starting with a letter and not ending with a hyphen, such as my-notebook."),
    _("Give it a name of 1 to 100 characters that says what it is for."),
)


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Each phrase as a pattern with a named group per placeholder."""
    made = []
    for phrase in PHRASES:
        parts = re.split(r"%\((\w+)\)s", phrase)  # text, name, text, name, ..., text
        pattern = "".join(f"(?P<{part}>.+?)" if number % 2 else re.escape(part) for number, part in enumerate(parts))
        made.append((re.compile(pattern, re.DOTALL), phrase))
    return tuple(made)


def known(text: str) -> str:
    """`text` in the language of the page when it is one of the phrases, else as it is."""
    if not text or (get_language() or "en").startswith("en"):
        return text
    for pattern, phrase in _patterns():
        match = pattern.fullmatch(text)
        if match:
            parts = match.groupdict()
            return gettext(phrase) % parts if parts else gettext(phrase)
    return text
