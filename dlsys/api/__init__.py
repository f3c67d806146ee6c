"""dlsys from Python. `import dlsys` offers what is here, and loads it when it is first used."""
