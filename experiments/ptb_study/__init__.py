"""The comparison on Penn Treebank: every arm tuned for itself, paired seeds, a table.

arms      what is compared with what
study     the runs, as processes
report    the table: bits per character, paired differences with intervals
"""
