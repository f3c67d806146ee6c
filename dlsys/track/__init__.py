"""MLflow, the one memory: metrics go through a local spool, and training never waits for them."""
