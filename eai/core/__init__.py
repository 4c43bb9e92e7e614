"""What all tasks share. Knows nothing of any task."""
