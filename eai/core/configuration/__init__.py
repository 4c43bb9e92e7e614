"""What a composed configuration means, what it may hold, and the objects that it becomes."""
