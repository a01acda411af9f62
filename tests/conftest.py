"""What all tests share: the real servers."""

from __future__ import annotations

pytest_plugins = ["tests.servers.fixtures"]
