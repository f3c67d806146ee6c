"""Reinforcement learning: algorithms, environments, tabular and planning agents."""
