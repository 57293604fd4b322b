"""Studies: questions that take many measurements, each done once and kept, and one page a study."""
