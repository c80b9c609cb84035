"""Measures how truncation, ARTBP and clipping behave where gradients explode.

A tanh network, whose recurrent weights start as ρ times an orthogonal matrix, forecasts the
Mackey-Glass series in sequences of a fixed length. Everything is computed in float64.

config     the fields
system     the network, the sequences, the loss, and clipping
gradients  (i) gradient norms against ρ, and (iv) the bias of clipped gradients
training   (ii) outcomes of training at a common grid of learning rates, and (iv) under clipping
bound      (iii) |change of the loss| ≤ L · η · θ_c at every clipped step
report     the tables
figure     five panels
"""
