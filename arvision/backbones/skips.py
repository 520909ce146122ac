"""A transformer whose late layers are given what early ones gave (U-ViT)."""

from arvision.backbones.decoder import Decoder


class Skips(Decoder):
  """U-ViT long skips: layer L - i concatenates the output of layer i.

  A linear map takes the concatenation back to the width. There are `depth` // 2
  layers, one in the middle, and `depth` // 2 more. It has no cache.

  Source: arXiv 2209.12152; bytedance/1d-tokenizer, UViTBert.
  """

  def _layers(self, x, inputs, cond, cache, layout, slots):
    if cache is not None:
      raise ValueError(
        'config.backbone: a backbone with skips has no cache; '
        "config.sampler.type='samplers.masked.Masked' needs none"
      )
    half = self.depth // 2
    x, kept = self._stack('stack', half, keep=True)(x, inputs)
    x, _ = self._stack('stack_mid', 1)(x, inputs)
    x, _ = self._stack('stack_out', half)(x, inputs, skips=kept[::-1])
    return self._last_norm('norm', x, cond)[:, :, None], None
