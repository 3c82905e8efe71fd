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
    # scaling by itself
    _("%(who)s lets it be scaled between %(least)s and %(most)s workers, as they are used."),
    _("%(who)s lets it be scaled no more; the number of workers stays as it is."),
    _("%(after)s workers instead of %(before)s: %(why)s."),
    _("It should have %(count)s workers, %(why)s, but: %(refusal)s"),
    # operators
    _("All replicas are ready; %(kind)s %(name)s does not say so yet."),
    _("%(kind)s %(name)s has failed: %(words)s. Read the logs of its replicas, then retry."),
    _("%(kind)s %(name)s has failed. Read the logs of its replicas, then retry."),
    _("This template needs an operator that the cluster does not have: %(what)s. Ask an admin to install it, or choose another template."),
    # runs that end
    _("%(role)s has run to its end: it ended with exit code 0."),
    _("%(role)s has run to its end: all %(count)s replicas ended with exit code 0."),
    _("%(name)s has done its work, so it was stopped. What it printed is kept."),
    _("The workers of %(name)s run once, all together. Stop it, scale it, and start it again."),
    # approval
    _("Waiting for approval by %(who)s."),
    _("Template %(template)s with flavor %(flavor)s needs approval in team %(team)s."),
    _("Template %(template)s needs approval in team %(team)s."),
    _("Flavor %(flavor)s needs approval in team %(team)s."),
    _("It is to run for %(span)s; up to %(most)s needs no approval."),
    _("It takes %(amount)s; up to %(most)s needs no approval."),
    _("%(who)s asks for approval of %(name)s in team %(team)s. %(why)s"),
    _("%(who)s approved it: %(note)s"),
    _("%(who)s approved it."),
    _("%(who)s approved %(name)s: %(note)s"),
    _("%(who)s approved %(name)s."),
    _("%(who)s refused it: %(note)s"),
    _("%(who)s refused %(name)s: %(note)s"),
    _("The flavor is %(after)s instead of %(before)s."),
    _("%(after)s workers instead of %(before)s."),
    _("The running time is %(after)s instead of %(before)s."),
    _("Nobody answered for %(span)s, so it is not started. Retry it to ask again."),
    _("Nobody answered for %(span)s whether %(name)s may start. Retry it to ask again."),
    _("There is no such request for approval."),
    _("%(name)s has been approved by %(who)s already."),
    _("%(name)s has been refused by %(who)s already."),
    _("%(name)s was not answered in time; it can be asked for again."),
    _("%(name)s has been withdrawn."),
    _("%(name)s does not wait for approval any more."),
    _("%(name)s waits for approval as it was asked for; stop it to ask for something else."),
    _("Nobody approves what is his own; ask %(who)s."),
    _("Leads of the team approve; ask %(who)s."),
    _("Say why, so that it can be asked for differently."),
    _("%(flavor)s is not within %(asked)s, which was asked for; only less can be approved."),
    _("Must be a whole number up to %(most)s, which was asked for."),
    _("Must be at most %(most)s, which was asked for."),
    _("That needs approval. %(why)s Stop it, ask for this while it is stopped, and start it again: then it is asked."),
    # exceptions to Pod Security
    _(
        "%(flavor)s needs %(names)s, an exception to restricted Pod Security that team %(team)s does not have; "
        "ask %(who)s to grant it, or choose another flavor."
    ),
    _("Team %(team)s may no longer use %(name)s, which its flavor needs, so it is stopped."),
    # templates: versions, flavors, parameters
    _("Version %(later)s of template %(template)s replaces version %(before)s; it starts with that."),
    _("Version %(later)s of template %(template)s replaces version %(before)s, but it cannot start with that, so it keeps its own: %(why)s"),
    _("It no longer has %(names)s."),
    _("It runs for %(after)s instead of %(before)s, which that does not allow."),
    _("it has a home volume, this environment has none."),
    _("this environment has a home volume, it has none."),
    _("it has no parameter %(names)s."),
    _("%(flavor)s cannot be used with template %(template)s: it is for %(families)s, not %(family)s. Allowed: %(choice)s."),
    _("%(flavor)s cannot be used with template %(template)s: it has images for %(families)s, not for %(family)s. Allowed: %(choice)s."),
    _("%(flavor)s cannot be used with template %(template)s: it takes only %(globs)s. Allowed: %(choice)s."),
    _("%(flavor)s cannot be used with template %(template)s: it does not take this one. Allowed: %(choice)s."),
    _("%(value)s is greater than the maximum of %(most)s."),
    _("%(value)s is less than the minimum of %(least)s."),
    _("%(value)s does not match %(pattern)s."),
    _("%(value)s is too long."),
    _("%(value)s is not one of %(choice)s."),
    _("Images must come from %(prefixes)s."),
    _("%(image)s is not the name of an image such as registry.example.com/team/image:1.0."),
    # time
    _("The time of %(name)s was over, so it was stopped. Start it again to go on; its home volume is kept."),
    _("Its time is over in %(span)s; then it is stopped. Extend it to go on."),
    _("%(name)s is stopped in %(span)s, when its time is over. Extend it to go on."),
    _("It is deleted in %(span)s unless it is started or kept; its home volume stays."),
    _("%(name)s is deleted in %(span)s unless it is started or kept; its home volume stays."),
    _("It was stopped and nobody started or kept it, so it is deleted. Its home volume is kept."),
    _("%(name)s was stopped and nobody started or kept it, so it is deleted. Its home volume is kept."),
    _("%(who)s keeps it: it is not deleted by itself."),
    _("%(name)s is not going to be deleted by itself; there is nothing to keep it from."),
    _("Stopped so that %(whom)s, which is of higher priority, can start. Start it again to wait for room; its home volume is kept."),
    _("%(name)s was stopped so that %(whom)s, which is of higher priority, can start. Start it again to wait for room."),
    _("Nobody has used it since %(since)s; it is stopped in %(span)s unless somebody does."),
    _("Nobody has used %(name)s since %(since)s; it is stopped in %(span)s unless somebody does."),
    _("Nobody has used it since %(since)s (%(signs)s), so it is stopped. Start it again to go on; its home volume is kept."),
    _("Nobody has used %(name)s since %(since)s (%(signs)s), so it was stopped. Start it again to go on; its home volume is kept."),
    _("It is in use again, so it is not stopped."),
    # schedules
    _("%(who)s set its schedule: %(schedule)s."),
    _("%(who)s took its schedule away."),
    _("Its schedule starts it."),
    _("Its schedule stops it. It starts again by its schedule, or when somebody starts it; its home volume is kept."),
    _("Its schedule stopped %(name)s."),
    _("Its schedule could not start it: %(why)s"),
    _("Its schedule could not start %(name)s: %(why)s"),
    _("Its start of %(when)s was missed while the portal was away."),
    _("Its stop of %(when)s is left out, since it was started later."),
    _("Must be an object with start, stop, days and timezone."),
    _("The start must be a time of day such as 09:00, or null."),
    _("The stop must be a time of day such as 09:00, or null."),
    _("Give a time to start, a time to stop, or both."),
    _("The time to start and the time to stop must differ."),
    _("The days must be numbers from 1 (Monday) to 7 (Sunday), at least one."),
    _("The timezone must be a name such as Asia/Shanghai or Europe/Berlin."),
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
    # the queue
    _("waiting for %(what)s: %(free)s free, but not together with all that it needs on one node, 1 environment ahead"),
    _("waiting for %(what)s: %(free)s free, but not together with all that it needs on one node, %(ahead)s environments ahead"),
    _("waiting for %(what)s: %(free)s free, 1 environment ahead"),
    _("waiting for %(what)s: %(free)s free, %(ahead)s environments ahead"),
    _("there is room, but it would delay one that goes first: 1 environment ahead"),
    _("there is room, but it would delay one that goes first: %(ahead)s environments ahead"),
    _("room is free, but not within one %(level)s"),
    _("it cannot start any more: %(why)s. Ask an admin for nodes, or stop it and request another shape."),
    _("There is room now; it waited %(span)s in the queue."),
    _("One of higher priority needs its room, so it will be stopped in %(span)s. Save your work; its home volume is kept."),
    _("%(name)s: One of higher priority needs its room, so it will be stopped in %(span)s. Save your work; its home volume is kept."),
    _("Its room is not needed any more, so it goes on running."),
    _("%(name)s: Its room is not needed any more, so it goes on running."),
    _("There is no such priority; in team %(team)s you may use %(choice)s."),
    _("%(priority)s is for leads of a team only; in team %(team)s you may use %(choice)s."),
    _("%(priority)s is for certain teams only; in team %(team)s you may use %(choice)s."),
    # why no node can hold it
    _("no node has the label %(label)s"),
    _("nodes are kept for others by the taint %(taint)s"),
    _("no node has %(first)s (the largest node has %(most)s) or %(second)s (the largest node has %(other)s)"),
    _("no node has %(wanted)s (the largest node has %(most)s)"),
    _("no single node has all of %(all)s"),
    # what goes wrong in the cluster
    _("The cluster took %(pod)s off its node: %(message)s It is started again."),
    _("%(pod)s was on node %(node)s, which no longer answers. It is started again on another node when the cluster gives this one up."),
    _("%(pod)s was on node %(node)s, which no longer answers. It is given up there."),
    _("%(pod)s ended without a node. It is given up."),
    _("The home volume is not bound: %(message)s Ask an admin to check the storage class."),
    _(
        "The home volume %(claim)s is lost: the storage behind it is gone from the cluster. "
        "Ask an admin to restore it; or delete the environment with its volume, and begin anew."
    ),
    _("The home volume %(claim)s is gone from the cluster, so a new, empty one is made. Ask an admin whether it can be restored."),
    _("The namespace's quota is used up: %(message)s Stop something of this team, or ask an admin to raise the quota."),
    _("The notebook was lost and is started again. %(message)s"),
    _("It was lost %(times)s times within an hour, so it is not started again. %(message)s Read its log, then retry."),
    _("Removed from the cluster, and made again: %(objects)s."),
    _("The cluster is still removing what was there before: %(message)s. It is made again when that is gone; ask an admin if this stays."),
    _("The cluster's API does not answer; it is tried again until it does."),
    _("The cluster cannot do it now: %(message)s. It is tried again."),
    _("The cluster refuses it: %(message)s. Ask an admin; then retry."),
    _("The cluster does not accept it: %(message)s. Ask an admin to correct the template; then retry."),
    _("Something went wrong inside the portal; it is tried again. If this stays, tell an admin."),
    # data
    _("Team %(team)s may use no storage of that name; it may use %(choice)s. A platform admin can grant more."),
    _("It cannot start: team %(team)s may not use storage %(storage)s any more. Ask a platform admin, or request one without it."),
    _("%(storage)s cannot be used yet: a platform admin has to set its secrets %(names)s."),
    _("There is no such dataset, or it is not shown to you."),
    _("There is no such model, or it is not shown to you."),
    _("%(version)s lies in a volume of team %(team)s, which only its environments can mount."),
    _("%(version)s lies in the shared volume of team %(team)s, which only its environments can mount."),
    _("%(version)s lies in storage %(storage)s, which team %(team)s may not use; a platform admin can grant it."),
    _("%(version)s lies in its home volume; delete that first, or keep the volume."),
    _("%(version)s is mounted by %(who)s; delete that environment first."),
    _("%(path)s and %(other)s (%(what)s) would lie on each other; give one of them another mount_path."),
    _("%(what)s and %(other)s both set the variable %(name)s; choose one of them."),
    _("Use 1 to 60 lower-case letters, digits, dots, underscores and hyphens, such as imagenet-1k."),
    _("There is a dataset called %(name)s already; choose another name."),
    _("There is a model called %(name)s already; choose another name."),
    _("Must be a folder or file within the volume, such as runs/7/model, without .. in it."),
    _("Must be sha256:, sha512: or md5: and the digest in lower-case hex."),
    _("Must be a word such as onnx, safetensors or parquet."),
    _("The shared volume %(storage)s of team %(team)s is being purged. Try again in a minute."),
    # refusals
    _("You already have an environment called %(name)s in this team; choose another name or delete that one."),
    _("Choose between %(shortest)s and %(longest)s."),
    _("Team %(team)s may use %(limit)s; %(used)s in use, and this needs %(more)s more. The limit can be changed by %(who)s."),
    _("%(person)s in team %(team)s may use %(limit)s; %(used)s in use, and this needs %(more)s more. The limit can be changed by %(who)s."),
    _("Team %(team)s may use %(limit)s this month; %(used)s are used or promised, and this needs %(more)s more. The limit can be changed by %(who)s."),
    _(
        "%(person)s in team %(team)s may use %(limit)s this month; %(used)s are used or promised, and this needs %(more)s more. "
        "The limit can be changed by %(who)s."
    ),
    _("Not a name: use 1 to 40 lower-case letters, digits and hyphens, starting with a letter and not ending with a hyphen, such as my-notebook."),
    _("Give it a name of 1 to 100 characters that says what it is for."),
)


# Parts that may be sentences themselves; any other stops where a sentence ends.
_FREE = frozenset({"note", "why", "when", "since", "signs", "schedule", "reason", "message"})


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Each phrase as a pattern with a named group per placeholder."""
    made = []
    for phrase in PHRASES:
        parts = re.split(r"%\((\w+)\)s", phrase)  # text, name, text, name, ..., text
        groups = (_group(part) if number % 2 else re.escape(part) for number, part in enumerate(parts))
        made.append((re.compile("".join(groups), re.DOTALL), phrase))
    return tuple(made)


def _group(name: str) -> str:
    return f"(?P<{name}>.+?)" if name in _FREE else rf"(?P<{name}>(?:(?!\. ).)+?)"


def _one(text: str) -> str | None:
    for pattern, phrase in _patterns():
        match = pattern.fullmatch(text)
        if match:
            parts = {name: known(part) if name in ("why", "schedule") else part for name, part in match.groupdict().items()}
            return gettext(phrase) % parts if parts else gettext(phrase)
    return None


def known(text: str) -> str:
    """`text` in the language of the page when it is one of the phrases, or several in a row; else as it is."""
    if not text or (get_language() or "en").startswith("en"):
        return text
    whole = _one(text)
    if whole is not None:
        return whole
    sentences = re.split(r"(?<=\.) ", text)
    found = [_one(sentence) for sentence in sentences] if 1 < len(sentences) <= 8 else []
    return " ".join(better or plain for better, plain in zip(found, sentences, strict=True)) if any(found) else text
