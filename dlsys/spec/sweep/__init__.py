"""The sections of a sweep, what its space may say, and the rules between them."""
