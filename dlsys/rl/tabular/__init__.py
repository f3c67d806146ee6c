"""Agents that keep a number for each state: planning with a known model, and learning without one."""
