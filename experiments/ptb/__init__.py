"""Trains a character language model on Penn Treebank, by truncated BPTT or ARTBP.

python -m experiments.ptb --config configs/ptb/small.py --workdir DIR         one run
python -m experiments.ptb_study --config configs/ptb/small.py --workdir DIR   the comparison
python -m experiments.ptb_authors --config configs/ptb/authors.py --workdir DIR   their protocol
python -m experiments.sample --workdir DIR                                    text from a run

data, generated     the text, its symbols, and rows for training
found_text          one of them, for other experiments: Penn Treebank where a folder is named
authors_cell        the cell of the ARTBP paper's authors
model               one recurrent layer, a readout, cross-entropy; bits per character of a text
config              every field of a configuration; the estimator and the measurements it names
trained             the params of a run
run                 one run, from a configuration to results.json
cost                what a run costs, for --dry_run
command_line        the flags of commands that read Penn Treebank
figure              the curve of one run
"""
