"""Experiments of mylab, run by eai."""
