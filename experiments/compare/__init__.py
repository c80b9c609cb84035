"""Compares every estimator of the registry on the same systems, at the same cost.

config     the fields
systems    what is trained: influence balancing in five forms, and a task to learn
training   one arm on one system, at every rate of the grid
report     table and figure
"""
