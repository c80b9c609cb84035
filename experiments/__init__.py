"""Experiments built on artbp: one module each, run as `python -m experiments.NAME`."""
