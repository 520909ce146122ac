"""HMAR."""

PAPER = {
  'name': 'HMAR',
  'title': (
    'HMAR: Efficient Hierarchical Masked Auto-Regressive Image Generation'
  ),
  'source': 'arXiv 2506.04421',
  'group': 'A',
  'repository': 'NVlabs/HMAR',
  'status': 'trains in both stages and samples; reads the released weights',
}
