"""MEAP."""

PAPER = {
  'name': 'MEAP',
  'title': (
    'Mask-Enhanced Autoregressive Prediction: Pay Less Attention to Learn More'
  ),
  'source': 'arXiv 2502.07490',
  'group': 'K',
  'repository': 'scitix/MEAP',
  'status': (
    'trains and samples over codes of images; any next-token model of codes trains '
    'so by `--config.feed.masked=0.15 --config.backbone.input.extra=1`; reads no '
    'released weights, which are of text'
  ),
}
