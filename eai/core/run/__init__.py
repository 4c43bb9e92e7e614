"""One run, from its configuration to its score, in one process or in many."""
