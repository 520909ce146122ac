"""VAR."""

PAPER = {
  'name': 'VAR',
  'title': (
    'Visual Autoregressive Modeling: Scalable Image Generation via '
    'Next-Scale Prediction'
  ),
  'source': 'arXiv 2404.02905',
  'group': 'A',
  'repository': 'FoundationVision/VAR',
  'status': 'trains and samples; reads the released weights',
}
