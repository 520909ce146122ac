"""MaskGIT."""

PAPER = {
  'name': 'MaskGIT',
  'title': 'MaskGIT: Masked Generative Image Transformer',
  'source': 'arXiv 2202.04200',
  'group': 'A',
  'repository': 'google-research/maskgit',
  'status': 'trains and samples; reads the released weights of the tokenizer',
}
