"""What users bring: their code is imported, options are held against it, and it is found in tracebacks."""
