"""Learning a learning rate by differentiating through training: truncation flips the sign.

The inner training is the recurrent system: a time step is a step of SGD, the carry its weights, the
meta loss is counted at every step, and the params are the rates at the start and the end of the
schedule. All in float64.

config     the configuration and its checks
problems   two inner trainings as cells: a noisy quadratic, exactly, and a small network
methods    full BPTT, TBPTT, ARTBP and PES, and what each costs
landscape  the meta loss over both rates, by trying them
signs      (1) the sign of the meta-gradient along a range of rates
training   (2) learning the schedule with each method
study      both parts on both problems
report     the tables
figure     both, for both problems

Source: Wu, Ren, Liao & Grosse, "Understanding Short-Horizon Bias in Stochastic Meta-Optimization"
(arXiv 1803.02021), for the bias and the quadratic.
"""
