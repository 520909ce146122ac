"""ReCAP: samplers for MaskGIT, MAR and their like."""

PAPER = {
  'name': 'ReCAP',
  'title': (
    'Plug-and-Play Context Feature Reuse for Efficient Masked Generation'
  ),
  'source': 'arXiv 2505.19089',
  'group': 'C',
  'repository': 'liebenxj/ReCAP',
  'status': (
    'samples from any MaskGIT or MAR by '
    '`--config.sampler.type=samplers.recap.ReuseMasked` or `ReuseRandomOrder`; '
    'trains its U-ViT and reads the released weights'
  ),
}
