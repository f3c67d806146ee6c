"""How the workers of a run come to life: in this process, or as Ray Train workers."""
