"""CTF."""

PAPER = {
  'name': 'CTF',
  'title': (
    'Improving Autoregressive Image Generation through Coarse-to-Fine Token '
    'Prediction'
  ),
  'source': 'arXiv 2503.16194',
  'group': 'A',
  'repository': '',
  'status': 'trains and samples; there is no release',
}
