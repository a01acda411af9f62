"""The target agent: makes what should be live so on this machine.

It owns Envoy and the model servers, each of which dies with it. `data_plane` is the face of both.
"""

from __future__ import annotations
