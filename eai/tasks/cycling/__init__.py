"""Slides 2.1 and 2.3 joined: forecast, observe, analyse, forecast; an analysis that is learned without the truth."""
