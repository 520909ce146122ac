"""M-VAR."""

PAPER = {
  'name': 'M-VAR',
  'title': (
    'M-VAR: Decoupled Scale-wise Autoregressive Modeling for High-Quality '
    'Image Generation'
  ),
  'source': 'arXiv 2411.10433',
  'group': 'A',
  'repository': 'OliverRensu/MVAR',
  'status': 'trains and samples; reads the released weights',
}
