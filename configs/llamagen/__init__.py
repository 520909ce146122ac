"""LlamaGen."""

PAPER = {
  'name': 'LlamaGen',
  'title': (
    'Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation'
  ),
  'source': 'arXiv 2406.06525',
  'group': 'A',
  'repository': 'FoundationVision/LlamaGen',
  'status': 'trains and samples; reads the released weights',
}
