"""One file an algorithm that RLlib has not, and one for those that it has."""
