"""Dynamical systems whose equations are known: what twin experiments integrate, and forecasts are made with."""
