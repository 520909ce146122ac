"""VQ-DDM."""

PAPER = {
  'name': 'VQ-DDM',
  'title': (
    'Global Context with Discrete Diffusion in Vector Quantised Modelling for '
    'Image Generation'
  ),
  'source': 'arXiv 2112.01799',
  'group': 'J',
  'repository': 'anonymrelease/VQ-DDM',
  'status': (
    'trains and samples with a transformer instead of the published U-Net; no '
    'weights are released'
  ),
}
