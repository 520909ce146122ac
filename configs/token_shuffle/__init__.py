"""Token-Shuffle."""

PAPER = {
  'name': 'Token-Shuffle',
  'title': (
    'Token-Shuffle: Towards High-Resolution Image Generation with '
    'Autoregressive Models'
  ),
  'source': 'arXiv 2504.17789',
  'group': 'F',
  'repository': '',
  'status': 'trains and samples; there is no release',
}
