"""The metadata bars: the shipped server against a tuned MLflow, on the same kind of database."""
