"""Compares Sparse Attentive Backtracking with TBPTT and full BPTT on copy memory."""
