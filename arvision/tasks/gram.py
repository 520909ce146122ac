"""Training a tokenizer whose textures are compared too (BAR)."""

import dataclasses

from arvision.metrics import Term
from arvision.ranges import AtLeast0
from arvision.tasks.tokenizer import TrainTokenizer
from arvision.tokenizers import gram


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrainWithGram(TrainTokenizer):
  """The training of tokenizers, with the Gram loss beside LPIPS.

  Source: arXiv 2602.09024 (BAR).

  Attributes:
    gram: weight of the Gram loss, in the features that LPIPS reads; without
      weight files it is off.
  """

  gram: AtLeast0 = 10.0

  @property
  def reads_weights(self) -> bool:
    return super().reads_weights or self.gram > 0

  def _distances(self, frozen, image, other):
    terms = super()._distances(frozen, image, other)
    if self.gram and 'perceptual' in frozen:
      texture = gram.distance(frozen['perceptual'], image, other)
      terms['gram'] = Term(texture, scale=self.gram)
    return terms
