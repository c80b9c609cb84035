"""The comparison on Penn Treebank: every arm tuned for itself, paired seeds, a table.

arms      what is compared with what
study     the runs, as processes
watched   what the runs measured on themselves
limits    what limits a trained model: gradient_report at its parameters
report    the table: bits per character, paired differences with intervals
figure    both in a picture
"""
