"""Exact match: which trained memory says what it was taught, and what else it changes."""
