"""Sweeps: searchers choose the settings of trials."""
