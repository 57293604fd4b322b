"""Experiments: one memory taught one task's facts, and everything that is measured on it."""
