"""Token-Shuffle that reads captions, 2.5 B parameters at 1024 px.

    arvision train --config=configs/token_shuffle/t2i.py \\
      --workdir=runs/token-shuffle \\
      --config.data.source.path=IMAGES --config.data.text.path=FEATURES

64 × 64 codes of LlamaGen's tokenizer become 1,024 windows of 2 × 2. Captions
are as in `llamagen/t2i`.

Published figures (not obtained here): GenEval 0.62; GenAI-Bench 0.77 on hard and
0.88 on basic prompts, rewritten by a language model.

Source: arXiv 2504.17789; there is no official code. 20 layers of width 3072 are
those of the paper. Deviations: captions enter as features of flan-t5-xl instead of
tokens of a vocabulary of 128,000 words, which is why 2.7 B parameters are 2.5 B; the
inner width, heads and form of the residual MLPs, batch and learning rate are not
published and chosen here; no first stage at 512 px, none at 2048 px with a z-loss.
"""

from arvision.configs.llamagen import t2i
from arvision.configs.token_shuffle import parts


def get_config(arg: str = ''):
  del arg
  config = t2i.captioned(1024)
  parts.token_shuffle(
    config,
    window=2,
    captions=True,
    **t2i.CAPTION,
    depth=20,
    width=3072,
    heads=24,
    hidden=8192,
    guidance=7.5,
  )
  return t2i.finished(config)
