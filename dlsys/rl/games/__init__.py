"""Board games: their rules, searches in them, opponents, and the environment that plays them."""
