"""Slide 2.1: from the state at one time to the next on a graph, and rolled out freely."""
