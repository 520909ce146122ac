"""MAR."""

PAPER = {
  'name': 'MAR',
  'title': 'Autoregressive Image Generation without Vector Quantization',
  'source': 'arXiv 2406.11838',
  'group': 'A',
  'repository': 'LTH14/mar',
  'status': 'trains and samples; reads the released weights',
}
