"""One file, one evaluation set."""
