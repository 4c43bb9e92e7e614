"""Slide 2.3: from a background and observations to the analysis, trained on the 3D-Var cost alone."""
