"""DiSA: variants of other papers' configs, `mar/imagenet256:B_disa`."""

PAPER = {
  'name': 'DiSA',
  'title': 'DiSA: Diffusion Step Annealing in Autoregressive Image Generation',
  'source': 'arXiv 2505.20297',
  'group': 'C',
  'repository': 'Qinyu-Allen-Zhao/DiSA',
  'status': (
    'samples: variants `_disa` of mar/imagenet256 and flowar/imagenet256, '
    '`--config.sampler.counts.last=15` of xar/imagenet256'
  ),
}
