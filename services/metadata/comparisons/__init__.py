"""What was trained, side by side: parameters, metrics, environment, code and data."""
