"""Agents: RLlib's, those that it no longer has, and tables; their environments and their loop."""
