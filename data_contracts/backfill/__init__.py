"""Backfills: which partitions to take in again and why, kept as one stored object, and what became of each."""
