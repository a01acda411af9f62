"""What is answered over HTTP: files of links, and packs on disk."""
