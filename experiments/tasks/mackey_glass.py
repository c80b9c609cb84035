"""Mackey-Glass: forecast a chaotic series, the solution of an equation with a delay.

    dx/dt = 0.2 x(t − 17) / (1 + x(t − 17)¹⁰) − 0.1 x(t)

sampled every unit of time and standardised: input (x(t) − mean) / sd, target the same at
t + horizon. Each row is one endless trajectory from a random constant past, of which the first
500 to 1500 units are left out; no resets, and every step counts.

Integration: over one step the delayed term is a known function of time, so the equation is linear
and variation of constants solves it. With g = 0.2 x/(1 + x¹⁰) at t − 17 and Simpson's rule,

    x(t + s) = e^{−0.1 s} x(t) + s/6 (e^{−0.1 s} g(t) + 4 e^{−0.05 s} g(t + s/2) + g(t + s))

with s = 1/4, and x(t + s/2 − 17) by the cubic through the four nearest grid points. That is as
accurate as Runge-Kutta of order 4 with such an interpolation (errors fall like s⁴), at one
evaluation of g per half step, and the g of 16 units of time are computed at once.

Baselines, squared error per step:
  optimum       0: the series is deterministic. It is a limit: a forecast needs the past 17 units
                and its error grows with the horizon (Lyapunov exponent about 0.006 per unit).
  constant      1, by always predicting the mean: the variance after standardising.
  persistence   by predicting the present value, 2 (1 − autocorrelation at the horizon): as
                measured, and there for the horizons in `PERSISTENCE` only.

Source: Mackey & Glass, "Oscillation and chaos in physiological control systems" (1977); as a
benchmark, Jaeger, "The 'echo state' approach" (2001).
"""

import math
from collections.abc import Iterator

import numpy as np

from experiments.tasks.base import Piece, Task, check_integer

DELAY = 17
STEPS_PER_UNIT = 4
BLOCK = 16  # units of time; below DELAY, so that all delayed values of a block are known

# Measured on 512 rows of 16,000 units each, after a transient of 1600, by this integration;
# standard errors 8e-6 and 6e-6, and 5e-4 of its value or less for each persistence.
MEAN = 0.93019
STANDARD_DEVIATION = 0.22614
PERSISTENCE = {1: 0.02129, 6: 0.67082, 17: 2.9868, 84: 2.697}


def mackey_glass(horizon: int = 6) -> Task:
    """Makes Mackey-Glass with delay 17, to be forecast `horizon` units of time ahead, 1 or more."""
    horizon = check_integer("horizon", horizon, 1)

    def pieces(rng: np.random.Generator, shared: np.random.Generator) -> Iterator[Piece]:
        # One grid point more than the delay, for the cubic.
        past = np.full(DELAY * STEPS_PER_UNIT + 2, rng.uniform(0.5, 1.3))
        for _ in range(rng.integers(500 // BLOCK, 1500 // BLOCK, endpoint=True)):
            past = advance(past)
        series = np.zeros(0, np.float32)
        begins = True
        while True:
            while len(series) <= horizon:
                past = advance(past)
                samples = past[-BLOCK * STEPS_PER_UNIT :][STEPS_PER_UNIT - 1 :: STEPS_PER_UNIT]
                standardised = (samples - MEAN) / STANDARD_DEVIATION
                series = np.concatenate([series, standardised.astype(np.float32)])
            count = len(series) - horizon
            mask = np.ones(count, bool)
            yield Piece(series[:count, None], series[horizon:, None], mask, begins)
            series, begins = series[count:], False

    measured = {"persistence": PERSISTENCE[horizon]} if horizon in PERSISTENCE else {}
    return Task(
        name=f"Mackey-Glass, horizon {horizon}",
        input_size=1,
        output_size=1,
        symbols=False,
        baselines={"optimum": 0.0, "constant": 1.0} | measured,
        pieces=pieces,
    )


def advance(past: np.ndarray) -> np.ndarray:
    """Returns the last 70 grid values, float64 [70], BLOCK units of time later."""
    step = 1 / STEPS_PER_UNIT
    fade, half_fade = math.exp(-0.1 * step), math.exp(-0.05 * step)
    delayed = past[: BLOCK * STEPS_PER_UNIT + 3]  # from one grid point before the delay
    ends = _feedback(delayed[1:-1])
    nearest, next_nearest = delayed[1:-2] + delayed[2:-1], delayed[:-3] + delayed[3:]
    middles = _feedback((9 * nearest - next_nearest) / 16)
    gains = step / 6 * (fade * ends[:-1] + 4 * half_fade * middles + ends[1:])
    x = float(past[-1])
    values = []
    for gain in gains.tolist():
        x = fade * x + gain
        values.append(x)
    return np.concatenate([past, values])[-len(past) :]


def _feedback(x: np.ndarray) -> np.ndarray:
    return 0.2 * x / (1 + x**10)
