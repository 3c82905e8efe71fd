"""Facts of this installation that processes share: folders, ports and secrets made on the first run. No Django in here."""

from __future__ import annotations

import os
import secrets
import tempfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def write_private(path: Path, text: str) -> None:
    """Write `text` so that only the owner can read it and no reader ever sees a part of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=path.parent)  # mkstemp makes it 0600
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.replace(temporary, path)


def secret(var: Path, name: str, make: str = "token") -> str:
    """The secret `name` of this installation, made on first use under `var/secrets/` with mode 600.

    `make`: "token" (43 URL-safe characters), "hex32" (32 bytes in hex), "rsa" (a 2048-bit PEM key) or "fernet" (a key of `portal.domain.vault`).
    An environment variable `ATELIER_<NAME>` wins, which is how production passes its own.
    """
    given = os.environ.get("ATELIER_" + name.upper())
    if given:
        return given
    path = var / "secrets" / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    value = {"token": lambda: secrets.token_urlsafe(32), "hex32": lambda: secrets.token_hex(32), "rsa": _rsa_key, "fernet": _fernet_key}[make]()
    fd, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(fd, "w") as file:
        file.write(value)
    try:
        os.link(temporary, path)  # fails if another process was first: then that one's value counts
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
    return path.read_text()


def _rsa_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def _fernet_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def socket_path(var: Path, name: str) -> Path:
    """Where a Unix socket of this installation lies. A path over 107 bytes cannot be bound, so deep checkouts use the temporary folder."""
    path = var / "run" / name
    if len(os.fsencode(path)) < 100:
        return path
    digest = sha256(os.fsencode(var.resolve())).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"atelier-{os.getuid()}-{digest}" / name
