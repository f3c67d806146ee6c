"""The sections of an agent's job, and the rules between them."""
