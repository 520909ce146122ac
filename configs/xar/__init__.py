"""xAR."""

PAPER = {
  'name': 'xAR',
  'title': (
    'Beyond Next-Token: Next-X Prediction for Autoregressive Visual Generation'
  ),
  'source': 'arXiv 2502.20388',
  'group': 'A',
  'repository': 'OliverRensu/xAR',
  'status': 'trains and samples; reads the released weights',
}
