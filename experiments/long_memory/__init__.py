"""Compares tools for long dependencies on four tasks, at equal work.

config    the fields
arms      the table of arms: an estimator, a cell and an optimiser each, with their costs
model     the cells, the readout, the critic
problems  copy memory, the adding problem, digits pixel by pixel, a character text
training  several runs of an arm on a task side by side, in one program; the scores
report    the table and the figure
"""
