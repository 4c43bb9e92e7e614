"""Variational data assimilation on a ring or a plane: observations, covariances, J, its solvers and nets for them.

The tasks assimilation and cycling both use it; neither knows the other.
"""
