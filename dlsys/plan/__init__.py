"""Know before you run: what a sweep will do, from rules and figures alone. No torch, no Ray."""
