"""TokenBridge."""

PAPER = {
  'name': 'TokenBridge',
  'title': (
    'Bridging Continuous and Discrete Tokens for Autoregressive Visual '
    'Generation'
  ),
  'source': 'arXiv 2503.16430',
  'group': 'B',
  'repository': 'YuqingWang1029/TokenBridge',
  'status': 'trains and samples; reads the released weights',
}
