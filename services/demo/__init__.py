"""`modelyard demo`: the main job once, for real, through the public API only."""

from services.demo.story import run

__all__ = ["run"]
