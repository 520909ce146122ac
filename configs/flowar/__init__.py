"""FlowAR."""

PAPER = {
  'name': 'FlowAR',
  'title': (
    'FlowAR: Scale-wise Autoregressive Image Generation Meets Flow Matching'
  ),
  'source': 'arXiv 2412.15205',
  'group': 'A',
  'repository': 'OliverRensu/FlowAR',
  'status': 'trains and samples; reads the released weights',
}
