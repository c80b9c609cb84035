"""Predicts in closed form which estimator wins over memory and batch size, and trains.

All arms have equal memory: each stores about 61 states of the system for its backward passes, as a
mean over time. There are two maps: at equal time steps, and at equal work, where each arm evaluates
the cell as often as TBPTT does in all time steps.

system        one parameter that acts at once and, with the opposite sign, later on
prediction    the excess loss at the end of a training, from bias and variance alone
budget        what equal memory, equal time steps and equal work are
study         the predicted maps, and the points of them that are trained
report        the tables, and the figure: the maps, and predicted against observed
config        the fields
"""
