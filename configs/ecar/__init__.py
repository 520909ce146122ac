"""E-CAR."""

PAPER = {
  'name': 'E-CAR',
  'title': (
    'Efficient Continuous Autoregressive Image Generation via Multistage '
    'Modeling'
  ),
  'source': 'arXiv 2412.14170',
  'group': 'A',
  'repository': '',
  'status': 'trains and samples a variant; no code or weights are released',
}
