"""Fixtures of these tests."""

from tests.portal.world import broker, world

__all__ = ["broker", "world"]
