"""Infinity."""

PAPER = {
  'name': 'Infinity',
  'title': (
    'Scaling Bitwise AutoRegressive Modeling for High-Resolution Image Synthesis'
  ),
  'source': 'arXiv 2412.04431',
  'group': 'F',
  'repository': 'FoundationVision/Infinity',
  'status': 'trains and samples; reads the released weights',
}
