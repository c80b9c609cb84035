"""What a learned critic at the edges of unbiased TBPTT saves in variance, and where it cannot."""
