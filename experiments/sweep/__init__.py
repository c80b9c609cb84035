"""Runs many configurations of any experiments, and puts their results into one table.

python -m experiments.sweep --config configs/sweep/default.py --workdir DIR --jobs 2

plan     the runs that a configuration lists: their names, fields and checks
results  a row per run, and the rows of the experiments themselves; the table
running  the runs as processes or Slurm jobs: which are left to run, and what became of them
"""
