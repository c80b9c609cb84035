"""Compares evolution strategies that reuse their noise, on the task of the NRES paper."""
