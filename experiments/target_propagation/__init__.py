"""Compares target propagation with truncated and full BPTT on bits that are named a few steps later.

config    the fields, and target propagation as an arm
training  the streams, the trainings and the test
report    the table
"""
