"""The comparison on Penn Treebank: every arm tuned for itself, paired seeds, a table.

arms          what is compared with what
study         the runs, as processes
watched       what the runs measured on themselves
side_by_side  the same of single runs, such as one at each learning rate
limits        what limits a trained model: gradient_report at its parameters
clipped       what clipping does to the gradients of a trained model
report        the table: bits per character, paired differences with intervals
figure        differences and measurements in a picture
"""
