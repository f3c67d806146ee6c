"""Sweeps: many trials of one job, on Ray Tune."""
