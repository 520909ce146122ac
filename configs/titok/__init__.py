"""TiTok."""

PAPER = {
  'name': 'TiTok',
  'title': 'An Image is Worth 32 Tokens for Reconstruction and Generation',
  'source': 'arXiv 2406.07550',
  'group': 'B',
  'repository': 'bytedance/1d-tokenizer',
  'status': 'trains and samples; reads the released weights',
}
