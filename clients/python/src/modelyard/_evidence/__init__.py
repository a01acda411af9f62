"""What vouches for a version: signatures, signed statements, the bill of materials."""
