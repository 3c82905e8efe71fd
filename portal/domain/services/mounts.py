"""What an environment mounts: wishes checked, references pinned, and the shared claims that are needed made.

A wish is `{"storage": slug, "mount_path"?, "read_only"?}` or `{"ref": "dataset:imagenet@3", "mount_path"?}`. What is kept of it in
`Environment.mounts`, and read by workers:

    {"storage": "nas", "ref": "", "mount_path": "/mnt/nas", "read_only": false, "sub_path": "", "access": "write", "claim": "", "document": {...}}

`ref` is pinned; `access` is what the team may do with the storage; `claim` names a claim of the namespace (a shared one or a home volume),
where it is not made from `document`, the storage's document as it was then. `mount_path` is empty for what is only given as variables.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from .. import selectors
from ..errors import Conflict, ValidationError
from ..models import Access, ArtifactVersion, Environment, Storage, Team, TeamClaim, User, Volume
from ..quantities import STORAGE
from ..shape import parse_bytes
from . import ledger

Entry = dict[str, Any]
MAX_MOUNTS = 32
_PATH = re.compile(r"/[A-Za-z0-9._/-]{1,200}")
# Where the system and the portal have things of their own.
_RESERVED = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/scratch", "/sys", "/usr")
_FOLDERS = {"dataset": "/datasets", "model": "/models"}
_FIELDS = {"storage", "ref", "mount_path", "read_only"}


def resolve(*, actor: User, team: Team, template_spec: Mapping[str, Any], wishes: Any) -> list[Entry]:
    """Check what a request wants to mount in an environment of `team`. Raises ValidationError naming each wrong field, as mounts.0.storage."""
    if wishes is None:
        return []
    if not isinstance(wishes, Sequence) or isinstance(wishes, str | bytes) or len(wishes) > MAX_MOUNTS:
        raise ValidationError.field("mounts", f"Must be a list of at most {MAX_MOUNTS} objects with storage or ref.")
    errors: dict[str, list[str]] = {}
    entries: list[Entry] = []
    access = selectors.storage_access(team)
    for index, wish in enumerate(wishes):
        try:
            entries.append(_entry(actor, team, access, wish, f"mounts.{index}"))
        except ValidationError as error:
            errors.update(error.errors)
    if not errors:
        for index, message in _collisions(entries, template_spec).items():
            errors[f"mounts.{index}.mount_path"] = [message]
    if errors:
        raise ValidationError(" ".join(message for messages in errors.values() for message in messages), errors=errors)
    return entries


def _entry(actor: User, team: Team, access: Mapping[str, tuple[Storage, str]], wish: Any, field: str) -> Entry:
    if not isinstance(wish, Mapping) or ("storage" in wish) == ("ref" in wish):
        raise ValidationError.field(field, "Must be an object with either storage or ref.")
    for name in wish:
        if name not in _FIELDS:
            raise ValidationError.field(f"{field}.{str(name)[:60]}", f"There is no such field; there are {', '.join(sorted(_FIELDS))}.")
    path, read_only = wish.get("mount_path"), wish.get("read_only", False)
    if path is not None:
        path = _checked_path(path, f"{field}.mount_path")
    if not isinstance(read_only, bool):
        raise ValidationError.field(f"{field}.read_only", "Must be true or false.")
    if "ref" in wish:
        return _reference(actor, team, access, str(wish["ref"]), path, f"{field}.ref")
    slug = str(wish["storage"])
    if slug not in access:
        yours = ", ".join(access) or "none"
        raise ValidationError.field(
            f"{field}.storage", f"Team {team.slug} may use no storage of that name; it may use {yours}. A platform admin can grant more."
        )
    storage, may = access[slug]
    unset = set(storage.secret_keys) - set(storage.secrets.values_list("key", flat=True))
    if unset:  # its pods would wait for a Secret that nobody has written
        message = f"{slug} cannot be used yet: a platform admin has to set its secrets {', '.join(sorted(unset))}."
        raise ValidationError.field(f"{field}.storage", message)
    mounted = "mount_path" in storage.spec
    if path is not None and not mounted:
        raise ValidationError.field(f"{field}.mount_path", f"{slug} is not mounted as a folder; it is given as variables.")
    if read_only and storage.kind == Storage.Kind.SCRATCH:
        raise ValidationError.field(f"{field}.read_only", f"{slug} begins empty, so reading alone is of no use.")
    return _of_storage(storage, may) | {"mount_path": (path or storage.spec["mount_path"]) if mounted else "", "read_only": read_only or may == Access.READ}


def _of_storage(storage: Storage, access: str) -> Entry:
    return {
        "storage": storage.slug,
        "ref": "",
        "mount_path": "",
        "read_only": True,
        "sub_path": "",
        "access": access,
        "claim": "",
        "document": storage.spec,
    }


def _reference(actor: User, team: Team, access: Mapping[str, tuple[Storage, str]], reference: str, path: str | None, field: str) -> Entry:
    version = selectors.version_find(actor, reference, field=field)
    why = why_not_in(team, version, access)
    if why:
        raise ValidationError.field(field, why)
    artifact = version.artifact
    if version.volume:
        entry: Entry = _of_home(version.volume)
    else:
        assert version.storage is not None  # noqa: S101 - one of the two
        entry = _of_storage(*access[version.storage.slug])
    default = f"{_FOLDERS[artifact.kind]}/{artifact.name}"
    return entry | {"ref": version.reference, "mount_path": path or default, "sub_path": version.path}


def _of_home(volume: Volume) -> Entry:
    entry = {"storage": "", "ref": "", "mount_path": "", "read_only": True, "sub_path": "", "access": Access.READ.value}
    return entry | {"claim": volume.claim, "document": {}}


def why_not_in(team: Team, version: ArtifactVersion, access: Mapping[str, tuple[Storage, str]]) -> str:
    """Why the version cannot be mounted in environments of `team`, in words; empty when it can."""
    home = version.volume
    if home is not None:
        return "" if home.team_id == team.pk else f"{version.reference} lies in a volume of team {home.team.slug}, which only its environments can mount."
    storage = version.storage
    assert storage is not None  # noqa: S101 - one of the two
    if storage.slug not in access:
        return f"{version.reference} lies in storage {storage.slug}, which team {team.slug} may not use; a platform admin can grant it."
    if storage.kind == Storage.Kind.CLAIM and version.artifact.team_id != team.pk:
        return f"{version.reference} lies in the shared volume of team {version.artifact.team.slug}, which only its environments can mount."
    return ""


def _checked_path(path: Any, field: str) -> str:
    if not isinstance(path, str) or not _PATH.fullmatch(path) or posixpath.normpath(path) != path:
        raise ValidationError.field(field, "Must be an absolute path such as /mnt/data: letters, digits, dots, underscores and hyphens.")
    for reserved in _RESERVED:
        if path == reserved or path.startswith(reserved + "/"):
            raise ValidationError.field(field, f"{reserved} belongs to the system; choose a path such as /mnt/data.")
    return path


def _collisions(entries: Sequence[Entry], template_spec: Mapping[str, Any]) -> dict[int, str]:
    """Entries that would lie on top of each other, of the home folder or of a volume of the template, or set the same variable twice."""
    taken = {"home": str((template_spec.get("home") or {}).get("mount_path", "/home/jovyan"))}
    for role in template_spec.get("roles", ()):
        for volume in role.get("volumes", ()):
            taken.setdefault(f"a volume of {role['name']}", str(volume.get("mount_path", "")))
    found: dict[int, str] = {}
    variables: dict[str, str] = {}
    for index, entry in enumerate(entries):
        path, what = entry["mount_path"], entry["ref"] or entry["storage"]
        for name, other in taken.items():
            if path and (path == other or other.startswith(path + "/") or (name != "home" and path.startswith(other + "/"))):
                found.setdefault(index, f"{path} and {other} ({name}) would lie on each other; give one of them another mount_path.")
        if path:
            taken[what] = path
        for variable in _variables(entry):
            if variable in variables:
                found.setdefault(index, f"{what} and {variables[variable]} both set the variable {variable}; choose one of them.")
            variables[variable] = what
    return found


def _variables(entry: Entry) -> list[str]:
    """In the order of their names, so that the same wish is refused in the same words each time."""
    document = entry["document"]
    return [] if entry["ref"] else sorted((document.get(document.get("kind", ""), {}) or {}).get("env") or {})


def refresh(environment: Environment) -> list[Entry]:
    """What it mounts, as storages are now, before it starts again: references stay pinned. Raises Conflict when something may not be used any more."""
    team, owner = environment.team, environment.owner
    access = selectors.storage_access(team)
    entries = []
    for old in environment.mounts:
        if old["ref"]:
            try:
                new = _reference(owner, team, access, old["ref"], old["mount_path"], "mounts")
            except ValidationError as error:
                raise Conflict(f"It cannot start: {' '.join(error.errors['mounts'])} Request one without it.") from None
            entries.append(new)
            continue
        if old["storage"] not in access:
            raise Conflict(f"It cannot start: team {team.slug} may not use storage {old['storage']} any more. Ask a platform admin, or request one without it.")
        storage, may = access[old["storage"]]
        entries.append(_of_storage(storage, may) | {"mount_path": old["mount_path"], "read_only": old["read_only"] or may == Access.READ})
    return entries


# --- shared claims -----------------------------------------------------------------


def _shared(entries: Sequence[Entry]) -> dict[str, Mapping[str, Any]]:
    """Documents of the shared claims among them, by slug."""
    return {entry["storage"]: entry["document"] for entry in entries if entry["document"].get("kind") == Storage.Kind.CLAIM}


def new_claim_bytes(team: Team, entries: Sequence[Entry]) -> int:
    """Storage that the team's shared claims among them would newly take."""
    there = set(TeamClaim.objects.filter(team=team).values_list("storage__slug", flat=True))
    return sum(parse_bytes(str(document["claim"]["size"])) for slug, document in _shared(entries).items() if slug not in there)


def ensure_claims(team: Team, entries: list[Entry]) -> None:
    """Make the rows of the team's shared claims, reserving their storage, and put their names into `entries`. In the transaction of a verb.

    Raises QuotaExceeded, Conflict (one is being purged).
    """
    for slug, document in _shared(entries).items():
        storage = Storage.objects.select_for_update(no_key=True).get(slug=slug)  # two first requests at once: the second finds the first's row
        row = TeamClaim.objects.filter(team=team, storage=storage).first()
        if row is not None and row.purge_requested_at:
            raise Conflict(f"The shared volume {slug} of team {team.slug} is being purged. Try again in a minute.")
        if row is None:
            block, size = document["claim"], parse_bytes(str(document["claim"]["size"]))
            ledger.reserve_team(team, {STORAGE: size})
            key = uuid4()
            row = TeamClaim.objects.create(
                id=key,
                team=team,
                storage=storage,
                claim=f"storage-{slug}-{key.hex[:8]}",
                size_bytes=size,
                storage_class=block.get("storage_class", ""),
                access_mode=block.get("access_mode", "ReadWriteMany"),
            )
        for entry in entries:
            if entry["storage"] == slug:
                entry["claim"] = row.claim
