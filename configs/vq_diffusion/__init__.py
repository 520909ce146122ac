"""VQ-Diffusion."""

PAPER = {
  'name': 'VQ-Diffusion',
  'title': 'Vector Quantized Diffusion Model for Text-to-Image Synthesis',
  'source': 'arXiv 2111.14822',
  'group': 'J',
  'repository': 'microsoft/VQ-Diffusion',
  'status': 'trains and samples; reads the released weights',
}
