"""`kind: script` — a program of the user's own, which knows nothing of dlsys."""
