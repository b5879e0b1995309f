"""Answers for more images than one process should wait for: in shards, over processes, and resumable."""
