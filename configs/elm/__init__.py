"""ELM."""

PAPER = {
  'name': 'ELM',
  'title': (
    'Elucidating the design space of language models for image generation'
  ),
  'source': 'arXiv 2410.16257',
  'group': 'A',
  'repository': 'Pepper-lll/LMforImageGeneration',
  'status': 'trains and samples; reads the released weights',
}
