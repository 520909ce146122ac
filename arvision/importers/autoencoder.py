"""Keys of the convolutional autoencoders that tokenizers are made of."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from arvision.importers.table import Conv, Identity, Row, Shape

_FUSED = {'q': 0, 'k': 1, 'v': 2}


def rows(
  ours: Mapping[str, Shape],
  rename: Callable[[str], str],
  fused_qkv: bool = False,
) -> Iterator[Row]:
  """Rows of all convolutions and norms among some parameters.

  Args:
    ours: path -> shape; paths other than 'a/b/(kernel|bias|scale)' are passed
      over.
    rename: path of a module, with dots -> official name.
    fused_qkv: whether attention has one official kernel 'qkv' for three of
      ours.
  """
  for path, shape in ours.items():
    module, _, leaf = path.rpartition('/')
    if not module or leaf not in ('kernel', 'bias', 'scale'):
      continue
    form = Conv() if leaf == 'kernel' else Identity()
    start, total = 0, None
    head, _, last = module.rpartition('/')
    if fused_qkv and last in _FUSED:
      module = f'{head}/qkv'
      start, total = _FUSED[last] * shape[-1], 3 * shape[-1]
    end = 'bias' if leaf == 'bias' else 'weight'
    name = rename(module.replace('/', '.'))
    yield Row(path, f'{name}.{end}', form, start, total)


def levels(paths: Iterable[str]) -> int:
  """How many resolutions a decoder with these parameters has."""
  found = (re.search(r'up_(\d+)_', path) for path in paths)
  return 1 + max((int(m[1]) for m in found if m), default=0)


def ldm(name: str) -> str:
  """Our name of a module -> that of the LDM code, which VAR keeps."""
  name = _halves(name)
  name = re.sub(r'\.(down|up)_(\d)_(block|attn)_(\d)', r'.\1.\2.\3.\4', name)
  name = re.sub(r'\.(down|up)_(\d)_(\w+sample)', r'.\1.\2.\3', name)
  return name.replace('.mid_', '.mid.')


def llamagen(name: str, levels: int) -> str:
  """Our name of a module -> that of LlamaGen's code.

  Its decoder counts the levels in the order of execution, ours by level.
  """
  name = _halves(name)
  kind = {'block': 'res', 'attn': 'attn'}

  def level(match):
    i = int(match[2])
    i = levels - 1 - i if match[1] == 'up' else i
    return f'.conv_blocks.{i}.'

  def layer(match):
    return level(match) + f'{kind[match[3]]}.{match[4]}'

  name = re.sub(r'\.(down|up)_(\d)_(block|attn)_(\d)', layer, name)
  name = re.sub(
    r'\.(down|up)_(\d)_(\w+sample)', lambda m: level(m) + m[3], name
  )
  order = ('mid_block_1', 'mid_attn_1', 'mid_block_2')
  return re.sub(r'\.(mid_\w+?_\d)', lambda m: f'.mid.{order.index(m[1])}', name)


def maskgit(name: str) -> str:
  """Our name of a module -> that of MaskGIT's code in PyTorch."""
  name = ldm(name).replace('.mid.block_', '.mid.')
  return name.replace('.upsample.conv', '.upsample_conv')


def _halves(name):
  return re.sub(r'^(enc|dec)\.', r'\1oder.', name)
