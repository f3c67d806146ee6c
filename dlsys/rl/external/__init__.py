"""Simulators that are programs of their own, as environments: `docs/external-simulators.md`."""
