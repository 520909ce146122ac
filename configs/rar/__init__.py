"""RAR."""

PAPER = {
  'name': 'RAR',
  'title': 'Randomized Autoregressive Visual Generation',
  'source': 'arXiv 2411.00776',
  'group': 'A',
  'repository': 'bytedance/1d-tokenizer',
  'status': 'trains and samples; reads the released weights',
}
