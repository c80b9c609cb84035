"""Stability: exploding gradients, what truncation and ARTBP make of them, and what clipping costs.

A tanh network whose recurrent weights start as ρ times an orthogonal matrix forecasts the
Mackey-Glass series, in sequences of a fixed length. Everything is computed in float64.

config     the configuration and its checks
system     the network, the sequences, and the loss of whole sequences
methods    how the gradient is truncated, and the optimiser: SGD with clipping
norms      (i) gradient norms against ρ
training   (ii) outcomes of training at a common grid of learning rates, and (iv) under clipping
bound      (iii) |change of the loss| ≤ L · η · θ_c at every clipped step
clipping   (iv) the bias of clipped gradients
report     the tables
figure     four panels
"""
