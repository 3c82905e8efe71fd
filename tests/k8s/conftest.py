"""One embedded cluster for the tests of the client."""

from tests.embedded import embedded

__all__ = ["embedded"]
