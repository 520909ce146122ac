"""MaskBit."""

PAPER = {
  'name': 'MaskBit',
  'title': 'MaskBit: Embedding-free Image Generation via Bit Tokens',
  'source': 'arXiv 2409.16211',
  'group': 'A',
  'repository': 'markweberdev/maskbit',
  'status': 'trains and samples; reads the released weights',
}
