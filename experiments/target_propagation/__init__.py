"""Compares target propagation with truncated and full BPTT on bits to be named some steps later.

config    the fields, and target propagation as an arm
training  the streams, the trainings and the test
report    the table
"""
