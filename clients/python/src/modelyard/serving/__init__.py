"""The model server: one version of one model behind the Open Inference Protocol v2.

It runs in the model's own environment as `python -m modelyard.serving`, answers HTTP/JSON (with
the binary tensor extension) and gRPC from one event loop, and predicts in a bounded thread pool.
"""

from __future__ import annotations
