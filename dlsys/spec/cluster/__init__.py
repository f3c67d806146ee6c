"""The sections of a cluster, one class a provider, and the rules between them."""
