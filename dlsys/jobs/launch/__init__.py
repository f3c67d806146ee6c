"""How the workers of a run come to life: in this process, or on Ray, as actors or as Ray Train workers."""
