"""Learns learning rates by differentiating through training: truncation flips the sign.

The inner training is the recurrent system: a time step is a step of SGD, the carry its weights, the
meta loss is counted at every step, and the params are the rates at the start and the end of the
schedule. All in float64. Source of the question: Wu, Ren, Liao & Grosse, "Understanding
Short-Horizon Bias in Stochastic Meta-Optimization" (arXiv 1803.02021).

problems    a noisy quadratic and a small network as cells, and their loss over both rates
signs       (1) the sign of the meta-gradient along a range of rates
look_backs  (1) for unbiased TBPTT
training    (2) learning the schedule with each arm
report      the tables
figure      both parts, for both problems
config      the fields
"""
