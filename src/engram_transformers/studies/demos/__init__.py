"""The demonstrations that the third seed proposed, each with its controls."""
