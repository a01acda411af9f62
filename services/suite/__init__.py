"""The embedded suite: `modelyard up` and what it supervises on one machine."""
