"""The models of `benchmarks.twins` in plain PyTorch, from its public layers.

Sizes come from a config of arvision, so both sides have the same shapes and the
same number of parameters. Written as one would for PyTorch: fused attention
(`scaled_dot_product_attention`), a cache that is written in place and read up to
the slot at hand, Python loops over steps and layers.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def head_split(x, heads):
  """(b, n, d) -> (b, h, n, k)."""
  return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Cache:
  """Keys and values of one layer, (b, h, n, k), filled from the front."""

  def __init__(self, batch, heads, slots, head, like):
    shape = (batch, heads, slots, head)
    self.k = torch.empty(shape, dtype=like.dtype, device=like.device)
    self.v = torch.empty_like(self.k)
    self.end = 0

  def extend(self, k, v, commit=True):
    """All keys and values with the new ones behind them."""
    end = self.end + k.shape[2]
    self.k[:, :, self.end : end] = k
    self.v[:, :, self.end : end] = v
    both = self.k[:, :, :end], self.v[:, :, :end]
    if commit:
      self.end = end
    return both


class Attention(nn.Module):
  """Self-attention; with a cache, over all that it holds."""

  def __init__(self, width, heads, biases=(), cosine=False, dropout=0.0):
    super().__init__()
    self.heads = heads
    self.qkv = nn.Linear(width, 3 * width, bias=False)
    self.out = nn.Linear(width, width, bias='out' in biases)
    self.biases = nn.ParameterDict(
      {n: nn.Parameter(torch.zeros(width)) for n in 'qkv' if n in biases}
    )
    self.scale = None
    if cosine:
      self.scale = nn.Parameter(torch.full((heads, 1, 1), math.log(4.0)))
    self.dropout = nn.Dropout(dropout)

  def forward(self, x, mask=None, rotation=None, cache=None, commit=True):
    parts = self.qkv(x).chunk(3, -1)
    parts = [
      p + self.biases[n] if n in self.biases else p
      for n, p in zip('qkv', parts)
    ]
    q, k, v = (head_split(p, self.heads) for p in parts)
    if rotation is not None:
      q, k = rotate(q, rotation), rotate(k, rotation)
    scale = None
    if self.scale is not None:
      factor = self.scale.clamp(max=math.log(100.0)).exp()
      q, k = F.normalize(q, dim=-1) * factor.to(q.dtype), F.normalize(k, dim=-1)
      scale = 1.0
    if cache is not None:
      k, v = cache.extend(k, v, commit)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return self.dropout(self.out(y.transpose(1, 2).flatten(2)))


def rotate(x, table):
  """Rotates interleaved pairs of x (b, h, n, k) by table (2, n, k / 2)."""
  a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
  cos, sin = table
  return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def rotations(height, width, head, base=10000.0):
  """(2, height * width, head / 2): half of the pairs turn by rows."""
  frequency = base ** (-torch.arange(0, head // 2, 2) / (head // 2))
  y = torch.arange(height).repeat_interleave(width)
  x = torch.arange(width).repeat(height)
  angle = torch.cat([y[:, None] * frequency, x[:, None] * frequency], -1)
  return torch.stack([angle.cos(), angle.sin()])


class GELU(nn.Module):
  """fc2(gelu(fc1 x)), tanh form or exact."""

  def __init__(self, width, hidden, tanh=True):
    super().__init__()
    self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
    self.kind = 'tanh' if tanh else 'none'

  def forward(self, x):
    return self.fc2(F.gelu(self.fc1(x), approximate=self.kind))


class GLU(nn.Module):
  """w2(f(w1 x) * w3 x)."""

  def __init__(self, width, hidden, bias, function, dropout=0.0):
    super().__init__()
    self.w1 = nn.Linear(width, hidden, bias=bias)
    self.w3 = nn.Linear(width, hidden, bias=bias)
    self.w2 = nn.Linear(hidden, width, bias=bias)
    self.function, self.dropout = function, nn.Dropout(dropout)

  def forward(self, x):
    return self.dropout(self.w2(self.function(self.w1(x)) * self.w3(x)))


class PlainBlock(nn.Module):
  """x + attention(norm x), x + mlp(norm x)."""

  def __init__(self, attention, mlp, norm):
    super().__init__()
    self.attention, self.mlp = attention, mlp
    self.norm1, self.norm2 = norm(), norm()

  def forward(self, x, mask=None, rotation=None, cache=None):
    x = x + self.attention(self.norm1(x), mask, rotation, cache)
    return x + self.mlp(self.norm2(x))


class ModulatedBlock(nn.Module):
  """The same with adaLN: gates, scales and shifts from a vector."""

  def __init__(self, width, attention, mlp, norm, drop_path=0.0):
    super().__init__()
    self.attention, self.mlp, self.norm = attention, mlp, norm
    self.adaln = nn.Linear(width, 6 * width)
    self.drop_path = drop_path

  def forward(
    self,
    x,
    vector,
    mask=None,
    rotation=None,
    cache=None,
    commit=True,
    rows=None,
  ):
    six = self.adaln(F.silu(vector))
    if rows is not None:
      six = six[:, rows]
    g1, g2, s1, s2, t1, t2 = six.chunk(6, -1)
    y = self.norm(x) * (1 + s1) + t1
    y = self.attention(y, mask, rotation, cache, commit)
    x = x + self.drop(y * g1)
    y = self.mlp(self.norm(x) * (1 + s2) + t2)
    return x + self.drop(y * g2)

  def drop(self, y):
    if not (self.training and self.drop_path):
      return y
    keep = torch.rand(len(y), 1, 1, device=y.device) >= self.drop_path
    return y * keep / (1 - self.drop_path)


def guided(x, scale):
  """Of rows with and then rows without the condition, one half."""
  cond, null = x.chunk(2)
  return null + scale * (cond - null)


def choose(logits, top_k=0, top_p=1.0):
  """An id for every row of logits (b, n, v), filtered as samplers do."""
  if 0 < top_k < logits.shape[-1]:
    worst = logits.topk(top_k).values[..., -1:]
    logits = logits.masked_fill(logits < worst, -torch.inf)
  if 0 < top_p < 1:
    ascending, order = logits.sort(-1)
    drop = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    drop[..., -1] = False
    logits = logits.masked_fill(drop.scatter(-1, order, drop), -torch.inf)
  flat = logits.softmax(-1).flatten(0, 1)
  return torch.multinomial(flat, 1).view(logits.shape[:2])


class VAR(nn.Module):
  """Next scale, with the canvas of a residual tokenizer.

  The canvas is float32, as are logits from the softmax on.
  """

  def __init__(self, config):
    super().__init__()
    backbone, tokenizer = config.backbone, config.tokenizer
    d, heads, depth = backbone.width, backbone.heads, backbone.depth
    scales = config.layout.scales
    self.scales = [(s, s) if isinstance(s, int) else tuple(s) for s in scales]
    self.classes = config.condition.classes
    self.channels = tokenizer.quantizer.channels
    self.heads = heads
    self.sizes = [h * w for h, w in self.scales]
    tokens = sum(self.sizes)
    vocab = config.head.vocab_size
    self.logits_filter, self.cfg = (
      config.sampler.logits_filter,
      config.sampler.guidance.end,
    )
    # Of the tokenizer: no parameters of the transformer.
    self.register_buffer('codebook', 0.02 * torch.randn(vocab, self.channels))
    kernels = torch.randn(4, self.channels, self.channels, 3, 3)
    self.register_buffer('phi', 0.02 * kernels)
    self.word = nn.Linear(self.channels, d)
    self.label = nn.Embedding(self.classes + 1, d)
    self.start = nn.Parameter(0.02 * torch.randn(self.sizes[0], d))
    self.slot = nn.Parameter(0.02 * torch.randn(tokens, d))
    self.level = nn.Parameter(0.02 * torch.randn(len(scales), d))
    self.blocks = nn.ModuleList(
      ModulatedBlock(
        d,
        Attention(d, heads, ('q', 'v', 'out'), cosine=True),
        GELU(d, backbone.block.mlp.hidden),
        nn.LayerNorm(d, eps=1e-6, elementwise_affine=False),
        backbone.drop_path * i / max(depth - 1, 1),
      )
      for i in range(depth)
    )
    self.norm = nn.LayerNorm(d, eps=1e-6, elementwise_affine=False)
    self.norm_adaln = nn.Linear(d, 2 * d)
    self.head = nn.Linear(d, vocab)
    step = torch.arange(len(scales)).repeat_interleave(torch.tensor(self.sizes))
    self.register_buffer('step', step)
    self.register_buffer('mask', step[:, None] >= step)

  def merge(self, canvas, codes, s):
    h = F.embedding(codes, self.codebook).transpose(1, 2)
    h = h.unflatten(2, self.scales[s])
    if self.scales[s] != self.scales[-1]:
      h = F.interpolate(h, self.scales[-1], mode='bicubic')
    phi = self.phi[s * len(self.phi) // len(self.scales)]
    return canvas + 0.5 * h + 0.5 * F.conv2d(h, phi, padding=1)

  def view(self, canvas, s):
    small = F.interpolate(canvas, self.scales[s], mode='area')
    return small.flatten(2).transpose(1, 2)

  def canvas(self, batch):
    shape = (batch, self.channels, *self.scales[-1])
    return torch.zeros(shape, device=self.codebook.device)

  def embed(self, values, index):
    x = self.word(values.to(self.word.weight.dtype))
    return x + self.slot[index] + self.level[self.step[index]]

  def layers(self, x, vector, mask=None, caches=None):
    for i, block in enumerate(self.blocks):
      cache = None if caches is None else caches[i]
      x = block(x, vector, mask, cache=cache)
    scale, shift = self.norm_adaln(F.silu(vector)).chunk(2, -1)
    return self.head(self.norm(x) * (1 + scale) + shift).float()

  def first(self, labels):
    vector = self.label(labels)[:, None]
    return vector, vector + self.start

  def forward(self, codes, labels):
    """Teacher forced: the logits of all tokens."""
    canvas, values, begin = self.canvas(len(codes)), [], 0
    for s, size in enumerate(self.sizes[:-1]):
      canvas = self.merge(canvas, codes[:, begin : begin + size], s)
      begin += size
      values.append(self.view(canvas, s + 1))
    vector, start = self.first(labels)
    count = self.sizes[0]
    index = torch.arange(len(self.step), device=codes.device)
    x = torch.cat(
      [
        start + self.slot[:count] + self.level[0],
        self.embed(torch.cat(values, 1), index[count:]),
      ],
      1,
    )
    return self.layers(x, vector, self.mask)

  @torch.inference_mode()
  def generate(self, labels):
    """Codes of all scales, with guidance and a cache."""
    batch, steps = len(labels), len(self.scales)
    null = torch.full_like(labels, self.classes)
    vector, start = self.first(torch.cat([labels, null]))
    d = start.shape[-1]
    caches = [
      Cache(2 * batch, self.heads, len(self.step), d // self.heads, start)
      for _ in self.blocks
    ]
    canvas, codes, begin = self.canvas(batch), [], 0
    for s, size in enumerate(self.sizes):
      index = torch.arange(begin, begin + size, device=labels.device)
      if s == 0:
        x = start + self.slot[index] + self.level[0]
      else:
        x = self.embed(self.view(canvas, s), index).repeat(2, 1, 1)
      scale = 1 + (self.cfg - 1) * s / max(steps - 1, 1)
      logits = guided(self.layers(x, vector, caches=caches), scale)
      codes.append(
        choose(logits, self.logits_filter.top_k, self.logits_filter.top_p)
      )
      canvas = self.merge(canvas, codes[-1], s)
      begin += size
    return torch.cat(codes, 1)

  def loss(self, codes, labels):
    drop = torch.rand(len(labels), device=labels.device) < 0.1
    labels = labels.masked_fill(drop, self.classes)
    logits = self(codes, labels)
    return F.cross_entropy(logits.flatten(0, 1), codes.flatten())


class LlamaGen(nn.Module):
  """Next token in raster order behind one slot for the class."""

  def __init__(self, config):
    super().__init__()
    backbone = config.backbone
    d, self.heads = backbone.width, backbone.heads
    self.grid = config.layout.height, config.layout.width
    self.classes = config.condition.classes
    self.cfg = config.sampler.guidance.scale
    vocab = config.head.vocab_size
    rate = backbone.dropout
    self.codes = nn.Embedding(vocab, d)
    self.label = nn.Embedding(self.classes + 1, d)
    self.blocks = nn.ModuleList(
      PlainBlock(
        Attention(d, self.heads, dropout=rate),
        GLU(d, backbone.block.mlp.hidden, False, F.silu, rate),
        lambda: nn.RMSNorm(d, eps=1e-5),
      )
      for _ in range(backbone.depth)
    )
    self.dropout = nn.Dropout(rate)
    self.norm = nn.RMSNorm(d, eps=1e-5)
    self.head = nn.Linear(d, vocab, bias=False)
    table = rotations(*self.grid, d // self.heads)
    table = F.pad(table, (0, 0, 1, 0))[:, :-1]  # the class has no place
    self.register_buffer('rotation', table)
    count = table.shape[1]
    self.register_buffer('mask', torch.ones(count, count).bool().tril())

  def layers(self, x, rotation, mask=None, caches=None):
    for i, block in enumerate(self.blocks):
      x = block(x, mask, rotation, None if caches is None else caches[i])
    return self.head(self.norm(x)).float()

  def forward(self, codes, labels):
    """Teacher forced: the logits of all tokens."""
    x = torch.cat([self.label(labels)[:, None], self.codes(codes[:, :-1])], 1)
    return self.layers(self.dropout(x), self.rotation, self.mask)

  @torch.inference_mode()
  def generate(self, labels):
    """Codes of all tokens, with guidance and a cache."""
    null = torch.full_like(labels, self.classes)
    x = self.label(torch.cat([labels, null]))[:, None]
    count, head = self.rotation.shape[1], x.shape[-1] // self.heads
    caches = [Cache(len(x), self.heads, count, head, x) for _ in self.blocks]
    codes = []
    for i in range(count):
      logits = self.layers(x, self.rotation[:, i : i + 1], caches=caches)
      codes.append(choose(guided(logits, self.cfg)))
      x = self.codes(codes[-1]).repeat(2, 1, 1)
    return torch.cat(codes, 1)

  loss = VAR.loss


def sinusoid(times, channels=256):
  """(..., channels): cosines of times, then sines."""
  half = channels // 2
  frequency = torch.exp(-math.log(1e4) * torch.arange(half) / half)
  angle = times[..., None].float() * frequency.to(times.device)
  return torch.cat([angle.cos(), angle.sin()], -1)


class LevelEmbedding(nn.Module):
  """A time as a vector."""

  def __init__(self, width):
    super().__init__()
    self.fc1, self.fc2 = nn.Linear(256, width), nn.Linear(width, width)

  def forward(self, times):
    x = sinusoid(times).to(self.fc1.weight.dtype)
    return self.fc2(F.silu(self.fc1(x)))


class XAR(nn.Module):
  """Next cell: the transformer takes the noise out of it, looking at its past.

  The state is float32.
  """

  def __init__(self, config):
    super().__init__()
    backbone, layout = config.backbone, config.layout
    d, self.heads = backbone.width, backbone.heads
    self.channels = config.head.channels
    self.classes = config.condition.classes
    self.cfg = config.sampler.guidance.end
    self.looks = config.sampler.counts.first
    self.lowest = config.sampler.solver.lowest
    height, width = layout.height, layout.width
    rows, columns = layout.cell
    self.size = rows * columns
    self.cells = height * width // self.size

    def norm():
      return nn.RMSNorm(d, eps=1e-6)

    def half(depth):
      return nn.ModuleList(
        ModulatedBlock(
          d,
          Attention(d, self.heads, ('q', 'k', 'v', 'out')),
          GLU(d, backbone.block.mlp.hidden, True, F.gelu),
          nn.RMSNorm(d, eps=1e-6, elementwise_affine=False),
        )
        for _ in range(depth)
      )

    self.input = nn.Linear(self.channels, d)
    self.input_norm = norm()
    self.label = nn.Embedding(self.classes + 1, d)
    self.level = LevelEmbedding(d)
    count = height * width
    self.first_slot = nn.Parameter(0.02 * torch.randn(count, d))
    self.second_slot = nn.Parameter(0.02 * torch.randn(count, d))
    self.first, self.second = half(backbone.depth), half(backbone.body.depth)
    self.first_norm, self.second_norm = norm(), norm()
    self.between = nn.Linear(d, d)
    self.head = nn.Linear(d, self.channels)
    table = rotations(height, width, d // self.heads)
    order = torch.arange(count).view(
      height // rows, rows, width // columns, columns
    )
    order = order.transpose(1, 2).reshape(-1)
    self.register_buffer('rotation', table[:, order])

  def look(self, x, labels, level, s, caches, commit):
    """The velocity of a cell x (b, n, c), guided."""
    here = slice(s * self.size, (s + 1) * self.size)
    time = torch.full((1,), math.floor(1000 * level), device=x.device)
    vector = (self.label(labels) + self.level(time))[:, None]
    rotation = self.rotation[:, here]
    x = self.input(x.to(self.input.weight.dtype)).repeat(2, 1, 1)
    x = self.input_norm(x + self.first_slot[here])
    caches = iter(caches)
    for block in self.first:
      x = block(x, vector, None, rotation, next(caches), commit)
    x = self.between(self.first_norm(x)) + self.second_slot[here]
    for block in self.second:
      x = block(x, vector, None, rotation, next(caches), commit)
    velocity = self.head(self.second_norm(x)).float()
    return guided(velocity, 1 + (self.cfg - 1) * s / max(self.cells - 1, 1))

  @torch.inference_mode()
  def generate(self, labels):
    """Latents of all cells, in order of cells."""
    batch, device = len(labels), labels.device
    labels = torch.cat([labels, torch.full_like(labels, self.classes)])
    head = self.between.weight.shape[0] // self.heads
    caches = [
      Cache(
        2 * batch,
        self.heads,
        self.cells * self.size,
        head,
        self.between.weight,
      )
      for _ in range(len(self.first) + len(self.second))
    ]
    levels = [*torch.linspace(1, self.lowest, self.looks).tolist(), 0.0]
    cells = []
    for s in range(self.cells):
      x = torch.randn(batch, self.size, self.channels, device=device)
      for level, to in zip(levels, levels[1:]):
        velocity = self.look(x, labels, level, s, caches, commit=False)
        drift = (2 - level) * velocity + x
        x = x + (to - level) * drift
        if to:
          x = x + math.sqrt(2 * level * (level - to)) * torch.randn_like(x)
      if s + 1 < self.cells:
        self.look(x, labels, 0.0, s, caches, commit=True)
      cells.append(x)
    return torch.cat(cells, 1)


class TokenMLP(nn.Module):
  """MAR's head: residual blocks with adaLN over single tokens with noise."""

  def __init__(self, channels, width, depth, cond):
    super().__init__()
    self.input, self.cond = nn.Linear(channels, width), nn.Linear(cond, width)
    self.time = LevelEmbedding(width)
    self.adaln = nn.ModuleList(
      nn.Linear(width, 3 * width) for _ in range(depth)
    )
    self.norms = nn.ModuleList(
      nn.LayerNorm(width, eps=1e-6) for _ in range(depth)
    )
    self.fc1 = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
    self.fc2 = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
    self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
    self.last = nn.Linear(width, 2 * width)
    self.linear = nn.Linear(width, 2 * channels)

  def forward(self, x, cond, time):
    """x (b, n, c), cond of z (b, n, w) -> (b, n, 2 c) float32."""
    cond = F.silu(cond + self.time(time))
    x = self.input(x.to(cond.dtype))
    for adaln, norm, fc1, fc2 in zip(
      self.adaln, self.norms, self.fc1, self.fc2
    ):
      shift, scale, gate = adaln(cond).chunk(3, -1)
      x = x + gate * fc2(F.silu(fc1(norm(x) * (1 + scale) + shift)))
    shift, scale = self.last(cond).chunk(2, -1)
    return self.linear(self.norm(x) * (1 + scale) + shift).float()


class MAR(nn.Module):
  """Tokens in a random order, those of a step by diffusion.

  The first half is given what is known alone, and diffusion draws no other
  tokens than those of the step. The state is float32.
  """

  def __init__(self, config):
    super().__init__()
    backbone, head = config.backbone, config.head
    d, heads = backbone.width, backbone.heads
    self.classes, self.prefix = config.condition.classes, config.layout.prefix
    self.tokens = config.layout.height * config.layout.width
    self.channels, self.steps = head.channels, config.sampler.steps
    self.diffusion = head.counts.first
    self.cfg = config.sampler.guidance.end
    slots = self.prefix + self.tokens

    def norm():
      return nn.LayerNorm(d, eps=1e-6)

    def half(depth):
      return nn.ModuleList(
        PlainBlock(
          Attention(d, heads, ('q', 'k', 'v', 'out')),
          GELU(d, backbone.block.mlp.hidden, tanh=False),
          norm,
        )
        for _ in range(depth)
      )

    def table(rows):
      return nn.Parameter(0.02 * torch.randn(rows, d))

    self.input, self.input_norm = nn.Linear(self.channels, d), norm()
    self.label = nn.Embedding(self.classes + 1, d)
    self.first_slot, self.second_slot = table(slots), table(slots)
    self.last_slot, self.hole = table(self.tokens), table(1)
    self.first, self.second = half(backbone.depth), half(backbone.body.depth)
    self.first_norm, self.second_norm = norm(), norm()
    self.between = nn.Linear(d, d)
    self.head = TokenMLP(self.channels, head.width, head.depth, d)
    # Any decreasing schedule does for its speed.
    bar = torch.cos(torch.linspace(0.02, 1.5, 1000)) ** 2
    times = torch.linspace(0, 999, self.diffusion).long()
    bar = bar[times]
    before = torch.cat([torch.ones(1), bar[:-1]])
    self.times, self.bar, self.before = times.tolist(), bar, before

  def hidden(self, values, known, labels):
    """z (2b, t, d) of all tokens; known (b, k) are numbers of tokens."""
    batch = len(values)
    shape = (batch, -1, self.channels)
    index = known[..., None].expand(shape)
    x = self.input(values.gather(1, index).to(self.input.weight.dtype))
    x = torch.cat([x, x])
    label = self.label(labels)[:, None].expand(-1, self.prefix, -1)
    place = torch.cat([known, known]) + self.prefix
    x = torch.cat(
      [
        label + self.first_slot[: self.prefix],
        x + self.first_slot[place],
      ],
      1,
    )
    x = self.input_norm(x)
    for block in self.first:
      x = block(x)
    x = self.between(self.first_norm(x))
    whole = self.hole.expand(2 * batch, len(self.second_slot), -1).clone()
    whole[:, : self.prefix] = x[:, : self.prefix]
    example = torch.arange(2 * batch, device=x.device)[:, None]
    whole[example, place] = x[:, self.prefix :]
    x = whole + self.second_slot
    for block in self.second:
      x = block(x)
    return self.second_norm(x)[:, self.prefix :] + self.last_slot

  def diffuse(self, z, scale):
    """Tokens (b, n, c) of z (2b, n, d)."""
    cond = self.head.cond(z)
    x = torch.randn(len(z) // 2, z.shape[1], self.channels, device=z.device)
    for k in reversed(range(self.diffusion)):
      time = torch.full((1,), self.times[k], device=z.device)
      field = self.head(x.repeat(2, 1, 1), cond, time)
      noise, share = field.chunk(2, -1)
      noise, share = guided(noise, scale), (share[: len(x)] + 1) / 2
      bar, before = self.bar[k].item(), self.before[k].item()
      beta = 1 - bar / before
      data = (x - math.sqrt(1 - bar) * noise) / math.sqrt(bar)
      small = max(beta * (1 - before) / (1 - bar), 1e-20)
      mean = math.sqrt(before) * beta / (1 - bar) * data
      mean = mean + math.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
      log = share * math.log(beta) + (1 - share) * math.log(small)
      x = mean + (0.5 * log).exp() * torch.randn_like(x) * (k > 0)
    return x

  @torch.inference_mode()
  def generate(self, labels):
    """Latents of all tokens, in raster order."""
    batch, device = len(labels), labels.device
    labels = torch.cat([labels, torch.full_like(labels, self.classes)])
    order = torch.rand(batch, self.tokens, device=device).argsort(1)
    values = torch.zeros(batch, self.tokens, self.channels, device=device)
    end = 0
    for i in range(self.steps):
      begin, left = end, 0
      if i + 1 < self.steps:
        share = math.cos(math.pi / 2 * (i + 1) / self.steps)
        hidden = self.tokens - begin
        left = max(1, min(hidden - 1, math.floor(self.tokens * share)))
      end = self.tokens - left
      if end == begin:
        continue
      z = self.hidden(values, order[:, :begin], labels)
      place = order[:, begin:end]
      index = torch.cat([place, place])[..., None].expand(-1, -1, z.shape[-1])
      scale = 1 + (self.cfg - 1) * end / self.tokens
      drawn = self.diffuse(z.gather(1, index), scale)
      values[torch.arange(batch, device=device)[:, None], place] = drawn
    return values


class Training:
  """AdamW with clipping, and a running average where the config has one."""

  def __init__(self, model, config, dtype):
    optim = config.optim
    self.model, self.clip, self.dtype = model.train(), optim.clip, dtype
    self.tx = torch.optim.AdamW(
      model.parameters(),
      lr=1e-4,
      betas=(optim.b1, optim.b2),
      weight_decay=optim.weight_decay,
      fused=True,
    )
    self.decays = [float(d) for d in config.ema]
    self.averages = [
      [p.detach().clone() for p in model.parameters()] for _ in self.decays
    ]

  def step(self, codes, labels):
    mixed = self.dtype != torch.float32
    with torch.autocast(codes.device.type, self.dtype, enabled=mixed):
      loss = self.model.loss(codes, labels)
    self.tx.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
    self.tx.step()
    with torch.no_grad():
      for decay, average in zip(self.decays, self.averages):
        params = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(average, params, 1 - decay)
    return loss.detach()


class GridAttention(nn.Module):
  """One head over all places of a grid (b, c, h, w)."""

  def __init__(self, channels):
    super().__init__()
    self.norm = nn.GroupNorm(min(32, channels), channels, eps=1e-6)
    self.qkv = nn.Conv2d(channels, 3 * channels, 1)
    self.out = nn.Conv2d(channels, channels, 1)

  def forward(self, x):
    q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, -1)
    y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    return x + self.out(y.transpose(1, 2).unflatten(2, x.shape[2:]))


class ResBlock(nn.Module):
  def __init__(self, before, after):
    super().__init__()
    self.norm1 = nn.GroupNorm(min(32, before), before, eps=1e-6)
    self.norm2 = nn.GroupNorm(min(32, after), after, eps=1e-6)
    self.conv1 = nn.Conv2d(before, after, 3, padding=1)
    self.conv2 = nn.Conv2d(after, after, 3, padding=1)
    self.shortcut = nn.Identity()
    if before != after:
      self.shortcut = nn.Conv2d(before, after, 1)

  def forward(self, x):
    h = self.conv1(F.silu(self.norm1(x)))
    return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Decoder(nn.Module):
  """The convolutional decoder of a tokenizer: latent to image."""

  def __init__(self, config):
    super().__init__()
    tokenizer, decoder = config.tokenizer, config.tokenizer.decoder
    width = decoder.ch * decoder.ch_mult[-1]
    z = tokenizer.encoder.z_channels
    kernel = tokenizer.get('quant_kernel', 3)
    layers = [
      nn.Conv2d(tokenizer.quantizer.channels, z, kernel, padding=kernel // 2),
      nn.Conv2d(z, width, 3, padding=1),
      ResBlock(width, width),
      GridAttention(width),
      ResBlock(width, width),
    ]
    lowest = len(decoder.ch_mult) - 1
    for i in reversed(range(len(decoder.ch_mult))):
      for _ in range(decoder.res_blocks + 1):
        layers.append(ResBlock(width, decoder.ch * decoder.ch_mult[i]))
        width = decoder.ch * decoder.ch_mult[i]
        if i == lowest:
          layers.append(GridAttention(width))
      if i:
        layers.append(nn.Upsample(scale_factor=2, mode='nearest'))
        layers.append(nn.Conv2d(width, width, 3, padding=1))
    layers += [nn.GroupNorm(min(32, width), width, eps=1e-6), nn.SiLU()]
    layers.append(nn.Conv2d(width, decoder.channels, 3, padding=1))
    self.layers = nn.Sequential(*layers)

  @torch.inference_mode()
  def forward(self, latent):
    return self.layers(latent).clamp(-1, 1)
