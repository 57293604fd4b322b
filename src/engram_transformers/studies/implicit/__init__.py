"""Implicit memory: what a small decoder gets from slots that outlive its attention's window."""
