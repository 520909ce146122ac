"""FlexVAR."""

PAPER = {
  'name': 'FlexVAR',
  'title': (
    'FlexVAR: Flexible Visual Autoregressive Modeling without Residual '
    'Prediction'
  ),
  'source': 'arXiv 2502.20313',
  'group': 'A',
  'repository': 'jiaosiyu1999/FlexVAR',
  'status': 'trains and samples; reads the released weights',
}
