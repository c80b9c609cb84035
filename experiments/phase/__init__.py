"""Predicts in closed form which estimator wins over memory and batch size, and trains.

system        one parameter that acts at once and, with the opposite sign, later on
prediction    the excess loss at the end of a training, from bias and variance alone
study         the predicted map, and the points of it that are trained
report        the table, and the figure: the map, and predicted against observed
config        the fields
"""
