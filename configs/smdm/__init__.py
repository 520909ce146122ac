"""SMDM, and the samplers and likelihoods of absorbing diffusion."""

PAPER = {
  'name': 'SMDM',
  'title': 'Scaling up Masked Diffusion Models on Text',
  'source': 'arXiv 2410.18514',
  'group': 'J',
  'repository': 'ML-GSAI/SMDM',
  'status': (
    'trains with the weights of the ELBO and samples by first hitting (arXiv '
    '2409.02908) or ancestrally, over codes of images; any masked model samples so by '
    '`--config.sampler.type=samplers.absorbing.FirstHitting`; reads no released '
    'weights, which are of text'
  ),
}
