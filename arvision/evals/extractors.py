"""Networks of features by name, as `--extractor=NAME:FILE` gives them."""

import pathlib
from typing import Any

from arvision.build import PATH, build, suggest
from arvision.errors import ConfigError
from arvision.evals.features import Extractor

# A network whose weights an installed package has.
_INSTALLED = 'efficientnet-lite0'
_INCEPTION = 'evals.inception.Inception'
# name -> its block, without the file; and fields of `Scoring` that belong to it.
NAMES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
  'inception-adm': ({'type': _INCEPTION, 'variant': 'adm'}, {}),
  'inception-pytorch-fid': ({'type': _INCEPTION, 'variant': 'pytorch-fid'}, {}),
  'inception-torch-fidelity': (
    {'type': _INCEPTION, 'variant': 'torch-fidelity'},
    {'splits': 'splits'},
  ),
  _INSTALLED: (
    {'type': 'evals.efficientnet.EfficientNetLite0'},
    {},
  ),
}


def extractor_of(text: str) -> tuple[Extractor, dict[str, Any]]:
  """Parses --extractor.

  Args:
    text: 'inception-adm:weights.pth'; instead of a name of `NAMES`, the import
      path of a class of your own ('mylab.nets.Net:weights.npz'), which is
      called with the file.

  Returns:
    the network, and the fields of `Scoring` that belong to it.

  Raises:
    ConfigError: an unknown name, or no file.
  """
  name, _, file = text.partition(':')
  if name not in NAMES and not PATH.fullmatch(name):
    raise ConfigError(
      f"--extractor='{text}': wanted NAME:FILE.{suggest(name, NAMES)}"
    )
  block, fields = NAMES.get(name, ({'type': name}, {}))
  known_place = name == _INSTALLED and not file
  if not known_place and not pathlib.Path(file or '/').is_file():
    raise ConfigError(
      f"--extractor='{text}': no file '{file}'; wanted {name}:FILE with the "
      'weights of the network'
    )
  try:
    found: Any = build({**block, 'path': file or None}, 'extractor')
    if known_place and found.missing:
      raise ConfigError(f"--extractor='{text}': {found.missing}")
  except ConfigError as error:
    text = str(error).replace('config.extractor', '--extractor')
    raise ConfigError(text) from error
  for needed in ('name', 'weights', 'resize'):
    if not isinstance(getattr(found, needed, None), str):
      raise ConfigError(
        f"--extractor='{name}' is no network of features: it has no {needed}, "
        'see evals.features.Extractor'
      )
  return found, fields
