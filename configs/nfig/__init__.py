"""NFIG."""

PAPER = {
  'name': 'NFIG',
  'title': 'Autoregressive Image Generation with Next-Frequency Prediction',
  'source': 'arXiv 2503.07076',
  'group': 'A',
  'repository': '',
  'status': 'trains and samples; there is no release',
}
