"""The demonstration: facts of its own, and a run that teaches, measures and takes them back."""

SOURCE = "engram demo"
"What the ledger of a demonstration says; its directory is told from others by this."
