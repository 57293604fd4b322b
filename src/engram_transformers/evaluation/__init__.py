"""Whether memories work: checks, probes and scores."""
