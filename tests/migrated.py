"""A database with its tables, made by the migrations once and copied by whoever needs one: they take longer than most tests."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from portal.runtime import ROOT

CACHE = ROOT / ".pytest_cache" / "databases"


def put_database(path: Path) -> None:
    """Make the SQLite file `path`: every table, no row of ours. Migrating it again finds nothing to do."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as target:
        copy_database(target)
        target.execute("PRAGMA journal_mode=WAL")


def copy_database(target: sqlite3.Connection) -> None:
    """The same into an open connection."""
    with closing(sqlite3.connect(f"file:{_made()}?mode=ro", uri=True)) as source:
        source.backup(target)


def _made() -> Path:
    """The file to copy, made anew when any module of the portal or any dependency has changed."""
    digest = sha256(sys.version.encode())
    for path in (ROOT / "uv.lock", *sorted((ROOT / "portal").rglob("*.py"))):
        digest.update(path.read_bytes())
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{digest.hexdigest()[:16]}.sqlite3"
    with (CACHE / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run begin at the same time
        if not path.exists():
            for old in CACHE.glob("*.sqlite3"):
                old.unlink()
            _migrate(path)
    return path


def _migrate(path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "DJANGO_SETTINGS_MODULE")}
    with TemporaryDirectory(prefix="atelier-migrated-") as folder:
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env={**inherited, "VAR_DIR": folder}, check=True)
        whole = path.with_suffix(".new")
        whole.unlink(missing_ok=True)
        with closing(sqlite3.connect(Path(folder) / "atelier.sqlite3")) as source, closing(sqlite3.connect(whole)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, that may be read without a place to write beside it
    whole.replace(path)
