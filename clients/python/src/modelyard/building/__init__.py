"""Building: what the worker runs inside the model's own environment, without a network."""
