"""ARFlow."""

PAPER = {
  'name': 'ARFlow',
  'title': 'Autogressive Flow with Hybrid Linear Attention',
  'source': 'arXiv 2501.16085',
  'group': 'A',
  'repository': 'TheFllood/ARFlow',
  'status': 'trains and samples; reads the released weights',
}
