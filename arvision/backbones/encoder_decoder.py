"""A decoder in two halves, each with positions of its own (xAR, FlowAR)."""

from arvision.backbones.decoder import Decoder
from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.ranges import AtLeast0, Few, Width
from arvision.structs import Template


class EncoderDecoder(Decoder):
  """`depth` layers, a norm and a linear map, and `second_depth` layers.

  Both halves have the same mask and condition. The official code calls them
  encoder and decoder.

  Source: OliverRensu/xAR (arXiv 2502.20388); LTH14/mar, whose halves MAR's
  backbone shares.

  Attributes:
    second_depth: layers of the second half; `depth` are those of the first.
    second_width, second_heads, second_mlp: width, heads and template of the MLP
      of the second half; None: those of the first.
    out_position: whether positions are added to what comes out (FlowAR, MAR).
    std: standard deviation of the map between the halves; None: Xavier's.
  """

  second_depth: Few = 1
  second_width: Width | None = None
  second_heads: Few | None = None
  second_mlp: Template | None = None
  out_position: bool = False
  std: AtLeast0 | None = None

  @property
  def stacks(self):
    heads = self.second_heads or self.heads
    return *super().stacks, (self.second_depth, self.out_width, heads)

  @property
  def out_width(self):
    """Width of the second half."""
    return self.second_width or self.width

  def _layers(self, x, inputs, cond, cache, layout, slots):
    first, second = (None, None) if cache is None else cache
    x, first = self._stack('stack', self.depth)(x, inputs, first)
    x = self._between(self._last_norm('norm_first', x, cond), layout, slots)
    x = x.astype(self.dtype)
    x, second = self._second(x, inputs, layout, slots, second)
    x = self._last_norm('norm', x, cond)
    if self.out_position:
      x = x + self._positions('position_out', layout, slots)
    written = None if cache is None else (first, second)
    return x[:, :, None], written

  def _second(self, x, inputs, layout, slots, cache=None):
    """The layers of the second half."""
    depth, width, heads = self.stacks[1]
    rotation = self._rotation(layout, slots.index, width // heads)
    stack = self._stack(
      'stack_second', depth, width=width, heads=heads, inner=self.second_mlp
    )
    return stack(x, inputs.replace(rotation=rotation), cache)

  def _between(self, x, layout, slots):
    """From what the first half gives to what the second is given."""
    return self._linear(x) + self._positions('position_second', layout, slots)

  def _linear(self, x):
    linear = Dense(
      (self.out_width,),
      ('embed', 'mlp'),
      kernel_init=normal(self.std),
      name='between',
    )
    return linear(x)

  def _positions(self, name, layout, slots):
    return self.position(width=self.out_width, name=name)(layout, slots)
