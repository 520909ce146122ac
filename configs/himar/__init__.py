"""Hi-MAR."""

PAPER = {
  'name': 'Hi-MAR',
  'title': (
    'Hierarchical Masked Autoregressive Models with Low-Resolution Token Pivots'
  ),
  'source': 'arXiv 2505.20288',
  'group': 'A',
  'repository': 'HiDream-ai/himar',
  'status': 'trains and samples; reads the released weights',
}
