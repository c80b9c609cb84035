"""Compares arms on Penn Treebank: each is tuned for itself, then run on paired seeds.

study         the arms, and their runs as processes
command_line  its flags, and those of other studies of this kind
report        the table: bits per character, paired differences with intervals
measured      the measurements that the runs make of their own gradients
limits        at the params of a finished run: `gradient_report`, and the effect of clipping
figure        differences and measurements in a picture
"""
