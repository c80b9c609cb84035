"""Penn Treebank characters as the ARTBP paper's authors trained: ARTBP 50, α = 4, from zero.

    python -m experiments.ptb --config configs/ptb/authors.py --workdir DIR
    (--set 'arm=tbptt(50, segment_start="initial")' for their other arm; --set
    model.hidden_size=256 for a smaller model; --set model.cell=lstm for the usual LSTM)
    python -m experiments.ptb_authors --config configs/ptb/authors.py --workdir DIR --jobs 2

Read from the authors' code and logs, github.com/ctallec/bigart at dd508e3: 1000 units of their own
cell, 64 contiguous rows that share their boundaries, c(k) = 3/(100 + k), every segment from the
zero state, Adam 1e-4, no clipping, no dropout, 20 epochs; lines with a space at each end;
validation text scored in 64 columns that carry their state. Their loss is not divided by the length
50; with Adam this is the same as `eps` divided by 50. Differences that remain: their compensation
takes the hazard of the age before, which makes weights up to 3.1 % too large; their readout starts
from a uniform distribution, ours from LeCun's normal; our last segment of an epoch ends with the
text, theirs runs on into its beginning. Theirs and ours begin each epoch at the first step, so
TBPTT has the same boundaries in all epochs. One of their six runs of each method has a forget bias
of 2; ours have 0.

Expected time: 3 to 4 hours on one core with AVX-512 and --set model.products=bfloat16; 256 units:
30 to 75 minutes.
Expected result: in their logs, validation bits after 20 epochs of 1.434 (ARTBP) and 1.472 (TBPTT),
means of six runs.
"""

import ml_collections


def get_config():
    """What differs from, or is worth repeating of, experiments.ptb.config.default_config()."""
    config = ml_collections.ConfigDict()
    config.arm = "artbp(50, alpha=4, segment_start='initial')"
    config.num_epochs = 20
    config.batch = 64
    config.columns = 64
    config.data = {"keep_line_spaces": True}
    config.model = {"cell": "authors_lstm", "hidden_size": 1000}
    config.optimizer = {"name": "adam", "learning_rate": 1e-4, "options": {"eps": 2e-10}}
    return config
