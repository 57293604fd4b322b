"""Exact match: which trained memory says the taught value of a key, and what else it changes."""
