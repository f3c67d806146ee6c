"""Rows from the user's own functions."""
