"""Influence balancing in plain NumPy, with gradients written out by hand."""

import numpy as np

N, P = 23, 10
SIGNS = np.array([1.0] * P + [-1.0] * (N - P))
A = 0.5 * np.eye(N) + 0.5 * np.diag(np.ones(N - 1), 1)


def train(lengths, compensation, eta_0, num_steps, *, theta=0.5, clock="time steps"):
    """Online SGD with one update per segment.

    Args:
        lengths: an iterator of segment lengths.
        compensation: compensation(k) is the gate after the step of age k, inside a segment.

    Returns:
        θ after each update, and the time step of each update.
    """
    state, step, updates = np.ones(N), 0, 0
    thetas, times = [], []
    while step < num_steps:
        length = min(next(lengths), num_steps - step)
        states = []
        for _ in range(length):
            state = A @ state + theta * SIGNS
            states.append(state)
        gradient, delta = 0.0, np.zeros(N)
        for age in range(length, 0, -1):
            gate = compensation(age) if age < length else 0.0
            delta = gate * (A.T @ delta)
            delta[0] += states[age - 1][0] - 1.0
            gradient += delta @ SIGNS
        step += length
        count = {"time steps": step, "updates": updates, "constant": 0}[clock]
        theta -= eta_0 / np.sqrt(1.0 + count) * gradient
        updates += 1
        thetas.append(theta)
        times.append(step)
    return np.array(thetas), np.array(times)
