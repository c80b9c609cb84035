"""Experiments built on artbp: one module each, run as `python -m experiments.NAME`."""

import sys

from experiments.common.interrupts import exit_on_ctrl_c

if sys.argv[0] == "-m":  # while Python looks for the module of `python -m experiments.NAME`
    exit_on_ctrl_c()
