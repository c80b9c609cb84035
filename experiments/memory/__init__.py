"""Measures how far the state carries information beyond the reach of the gradient.

A stream of episodes: an item is shown at the first step, random distractors follow, and the item
is to be named. Gradients are truncated at k2 steps; the state is not. What is the accuracy at a lag
far beyond k2, where the loss counts at every lag, and where it counts at that lag alone?

config    the fields, and the arm that trains the readout alone
training  the stream; all learning rates and losses of an arm in one program; test accuracies
report    the tables and the figure
"""
