"""What can be refused, in words a user can act on. Views and the API turn these into pages and problem documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class DomainError(Exception):
    """Base of every refusal. `code` is stable for programs, `detail` is for people."""

    status = 400
    code = "invalid"
    title = "Invalid request"

    def __init__(self, detail: str, *, errors: Mapping[str, Sequence[str]] | None = None, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors: dict[str, list[str]] = {field: list(messages) for field, messages in (errors or {}).items()}
        if code:
            self.code = code


class ValidationError(DomainError):
    """One or more fields are wrong; `errors` maps each field to what is wrong and the remedy."""

    status = 422
    code = "validation"
    title = "Some fields are not valid"

    @classmethod
    def field(cls, name: str, message: str) -> ValidationError:
        return cls(f"{name}: {message}", errors={name: [message]})


class NotFound(DomainError):
    """Absent, or not visible to the one who asks: outsiders cannot tell which."""

    status = 404
    code = "not_found"
    title = "Not found"


class Forbidden(DomainError):
    """Visible, but this actor may not do this."""

    status = 403
    code = "forbidden"
    title = "Not allowed"


class Conflict(DomainError):
    """The environment is not in a state in which this can be done."""

    status = 409
    code = "conflict"
    title = "Not possible in the present state"


class QuotaExceeded(DomainError):
    """A limit would be passed. The detail names the limit, the use, the amount asked for and who can change it."""

    status = 409
    code = "quota_exceeded"
    title = "Quota exceeded"
