"""Character language model on Penn Treebank: truncated BPTT against ARTBP.

python -m experiments.ptb --config configs/ptb/small.py --workdir DIR         one run
python -m experiments.ptb_study --config configs/ptb/small.py --workdir DIR   the comparison
python -m experiments.sample --workdir DIR                                    text from a run

vocabulary          the symbols of a text and their numbers
data, generated     the text, and rows for training
model               one recurrent layer, a readout, cross-entropy
evaluate            bits per character by streaming evaluation
config              every field of a configuration, and the estimator that it names
watch               bias and noise of truncated gradients, beside a run
run                 one run, from a configuration to results.json
"""
