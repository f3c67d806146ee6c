"""Runs in an object store: each node works on a local copy of a run's folder, and exchanges what is new."""
