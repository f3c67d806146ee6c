"""Simulators of what agents are hired for, each an environment that tells how its baseline would have done."""
