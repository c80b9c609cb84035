"""Copy memory across a lag that the gradient of truncated BPTT does not reach."""
