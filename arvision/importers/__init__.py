"""Released PyTorch weights in, and trained weights out in their form."""
