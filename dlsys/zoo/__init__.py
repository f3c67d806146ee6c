"""The catalogue of workloads: cards without torch, models, and the protocol between them."""
