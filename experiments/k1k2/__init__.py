"""Compares TBPTT(k1, k2), updates every k1 steps that look back k2, on the next character.

Three questions. For k2 > k1, does it matter what the older steps of a window are differentiated at
(the three modes of `artbp.tbptt_k1_k2`)? At fixed k2, do more frequent updates learn faster? At
fixed k1, what does a longer window bring?

config    the fields, and the arms that they describe
training  one slice of Penn Treebank or generated text for each run; all runs of an arm in one
          compiled program, its learning rate, its seconds per update
report    the table and the figure
"""
