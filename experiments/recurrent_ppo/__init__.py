"""Trains a recurrent policy by PPO, and measures the return for each window of the backward pass.

In a T-maze, a cue at the start of the corridor says which way to turn at its end. The policy must
carry the cue in its state. How long must the window of the backward pass be?

maze      the environment
ppo       generalised advantage estimation, and the loss of a step
training  rollouts, and updates from one pass of an estimator over the rollout; all runs of an arm
report    the table and the figure
config    the fields
"""
