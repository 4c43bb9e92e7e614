"""One folder per task. Tasks import from ``eai.core`` only, never from each other."""
