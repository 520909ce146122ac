"""ACDiT."""

PAPER = {
  'name': 'ACDiT',
  'title': (
    'ACDiT: Interpolating Autoregressive Conditional Modeling and Diffusion '
    'Transformer'
  ),
  'source': 'arXiv 2412.07720',
  'group': 'A',
  'repository': 'thunlp/ACDiT',
  'status': 'trains and samples; reads the released weights',
}
