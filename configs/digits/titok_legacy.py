"""Second stage of a legacy TiTok of scikit-learn's digits: codes to pixels.

    arvision train --config=configs/digits/titok_legacy.py \\
      --workdir=runs/digits/titok_legacy --init_from=runs/digits/titok_warmup

Train the first stage before it (`titok_warmup.py`). Encoder and codes stay as
they are. `titok_uvit.py` draws its codes too:

    arvision train --config=configs/digits/titok_uvit.py:legacy \\
      --workdir=runs/digits/titok_legacy_uvit

Source: arXiv 2406.07550. Deviations: as in `titok.py` beside this file.
"""

from arvision.configs import common
from arvision.configs.digits import titok_warmup, tokenizer
from arvision.configs.titok import parts


def get_config(arg: str = ''):
  del arg
  config = titok_warmup.get_config().unlock()
  tokenizer.recipe(config, l2=1.0)
  config.task.restart_after = 0
  config.task.fixed = parts.WARMED_UP
  config.optim.learning_rate = 1e-3
  config.optim.decay.exempt = parts.WARMED_UP
  config.train.duration = common.block(epochs=16)
  return common.locked(config)
