"""Direct transfers: bytes between clients and storage, by grants."""
