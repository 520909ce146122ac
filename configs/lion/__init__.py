"""Lion."""

PAPER = {
  'name': 'Lion',
  'title': 'Symbolic Discovery of Optimization Algorithms',
  'source': 'arXiv 2302.06675',
  'group': 'K',
  'repository': 'google/automl',
  'status': '`--config.optim.kind=lion` for every config; compared with AdamW',
}
