"""The Axial Transformer."""

PAPER = {
  'name': 'Axial',
  'title': 'Axial Attention in Multidimensional Transformers',
  'source': 'arXiv 1912.12180',
  'group': 'A',
  'repository': '',
  'status': (
    'trains and samples pixels; bits per dimension of held-out images; there is no '
    'release'
  ),
}
