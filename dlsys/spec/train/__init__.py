"""The sections of a training job, and the rules between them."""
