"""How memories are taught: planning, writing, checking."""
