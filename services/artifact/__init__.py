"""artifact: immutable, content-addressed trees of files.

It owns chunks, the packs they lie in, the recipes that make files of them, the
manifests that make artifacts of files, and the holds that keep artifacts. What
it has acknowledged is durable; what it hands out was verified on the way; a
project never sees, and cannot probe for, another project's bytes.
"""
