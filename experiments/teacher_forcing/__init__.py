"""Compares what a network learns from the truth and from its own forecasts as inputs.

A GRU forecasts the next value of the Mackey-Glass series. In training its input is the true value
at every step (teacher forcing), or the true values for a while and then its own last forecast for
a number of steps, over and over. Afterwards it is warmed up on true values and runs freely.

config      the fields
model       the cell that takes the truth or its own forecast, its data, and errors of free runs
training    all arms: training, choice of the learning rate, forecasts
report      the table, and the figure: error against horizon
"""
