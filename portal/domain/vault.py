"""Secrets at rest: Fernet (AES-128-CBC with HMAC-SHA256), keys from the installation's `storage_key`.

What was sealed with a key that is gone cannot be opened: `VaultError`, and the remedy is to write the secret anew.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class VaultError(Exception):
    """A secret cannot be opened with the keys there are."""


def _keys() -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in settings.STORAGE_KEY.split()])
    except ValueError as error:
        raise VaultError("ATELIER_STORAGE_KEY is not a Fernet key: 32 bytes in URL-safe base64.") from error


def seal(value: bytes) -> str:
    """`value` encrypted, as text for the database."""
    return _keys().encrypt(value).decode()


def unseal(sealed: str) -> bytes:
    """What `seal` was given. Raises VaultError."""
    try:
        return _keys().decrypt(sealed.encode())
    except InvalidToken:
        raise VaultError("The secret was encrypted with a key that this installation does not have; write it anew.") from None
