"""The command line: one file a group of verbs. Heavy imports happen inside the verbs."""
