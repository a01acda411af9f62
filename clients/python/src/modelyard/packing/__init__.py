"""Packing: from a model in memory or a folder to a bundle, and to a registered version."""

from __future__ import annotations

from modelyard.packing.publish import log_model

__all__ = ["log_model"]
