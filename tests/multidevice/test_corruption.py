"""One device of eight computes or stores wrong bits."""
