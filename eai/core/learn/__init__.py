"""What a step is: the task, its data, its scores and its figures."""
