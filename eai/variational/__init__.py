"""Variational data assimilation on a ring or a plane: observations, covariances, the 3D-Var cost, its solvers and nets for them.

The tasks assimilation and cycling both use it; neither knows the other.
"""
