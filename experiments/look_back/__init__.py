"""Measures what unbiased TBPTT costs on a character LSTM, beside TBPTT's bias and the data's noise.

Four questions. How large is the error of older windows that ran with older params, in both modes?
How much variance does the optimal law save at equal work? How much would be saved if a random
subset of the rows looked back? Which mode should be the default?

config     the fields, and the text
gradients  splits the gradient of a window by the older window that it goes through, and by row
staleness  a training, and the errors of its gradient estimates on the live state
variances  exact variances over look-backs, for laws at equal work and for subsets of the rows
report     the tables and the figure
"""
