"""Trees of files, there and back: cut, hashed, sent, read, verified, kept."""
