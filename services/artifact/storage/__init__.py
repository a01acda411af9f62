"""The storage behind artifacts: packs, the sweep, compaction, the scrubber, quotas."""
