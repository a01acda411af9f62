"""Real servers for tests, started from wheels on free ports; see `fixtures`."""
