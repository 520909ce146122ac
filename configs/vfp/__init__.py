"""VFP."""

PAPER = {
  'name': 'VFP',
  'title': 'Autoregressive Image Generation with Vision Full-view Prompt',
  'source': 'arXiv 2502.16965',
  'group': 'A',
  'repository': '',
  'status': 'trains and samples; no code or weights are released',
}
