"""Clusters: up, status, down and doctor, for every provider."""
