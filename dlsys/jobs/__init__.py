"""Running jobs: here and now, or on a cluster."""
