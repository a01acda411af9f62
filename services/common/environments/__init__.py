"""Virtual environments of models: locks, making, keeping, removal."""
