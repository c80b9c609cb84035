"""Trains on Penn Treebank as the paper's authors did, and says what their gain is made of.

python -m experiments.ptb_authors --config configs/ptb/authors.py --set model.hidden_size=256
    --workdir DIR --jobs 2

arms        the estimators, the carry that enters each segment, and the learning rates
rows        a row per run, finished or not; the authors' own curves
since_zero  bits of a trained model against the number of steps since a zero state, and where the
            boundaries of training were
continued   a command of its own: trains a run's best params on with another arm
report      the table: paired differences, the epochs at which curves cross, every run
figure      curves beside the authors' own, and bits since the zero state
"""
