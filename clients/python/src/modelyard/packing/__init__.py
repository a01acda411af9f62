"""Writing bundles: pickles, requirements, code snapshots and examples."""
