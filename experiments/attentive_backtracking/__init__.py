"""Trains Sparse Attentive Backtracking, TBPTT and full BPTT on copy memory.

config    the fields, and the arms: a cell, and where the gradient is cut
training  one program per arm: training by Adam, then accuracy on new sequences
report    the table and the figure
"""
