"""NAR."""

PAPER = {
  'name': 'NAR',
  'title': (
    'Neighboring Autoregressive Modeling for Efficient Visual Generation'
  ),
  'source': 'arXiv 2503.10696',
  'group': 'A',
  'repository': 'ThisisBillhe/NAR',
  'status': 'trains and samples; reads the released weights',
}
