"""BAR."""

PAPER = {
  'name': 'BAR',
  'title': 'Autoregressive Image Generation with Masked Bit Modeling',
  'source': 'arXiv 2602.09024',
  'group': 'A',
  'repository': 'amazon-far/BAR',
  'status': 'trains and samples; reads the released weights',
}
