"""Links: files by URL, for whoever has the link."""
