"""Writes reference statistics of images, for FID and its relatives.

    arvision reference --config=var/imagenet256 \\
      --extractor=inception-adm:inception.pth --output=imagenet256.npz

`arvision eval --reference=FILE` compares samples with them.
"""

import argparse
import pathlib

import jax

from arvision import trust
from arvision.commands import common, run_flags
from arvision.commands.overrides import override
from arvision.errors import ConfigError
from arvision.evals import reference as references
from arvision.evals.bounds import few
from arvision.evals.image_sets import ImageSet, of_data, open_images
from arvision.evals.protocol import data_name
from arvision.parallel import host
from arvision.ranges import Batch, Natural, Seed, number
from arvision.runs import measure, targets
from arvision.tasks import assemble
from arvision.training import workdir as workdirs

_SOURCES = ('config', 'workdir', 'images')


def main(argv: list[str]) -> None:
  """`arvision reference`: writes --output."""
  flags, overrides = common.parse(parser(), argv)
  given = [name for name in _SOURCES if getattr(flags, name) is not None]
  if len(given) != 1:
    raise ConfigError(
      'wanted one source of images: --config=FILE, --workdir=DIR or '
      '--images=PATH'
    )
  targets.check_file(flags.output, '--output')
  extractor, _ = run_flags.network(flags.extractor)
  host.use_compilation_cache()
  host.initialize()
  images = _images(flags, overrides)
  if warning := few(images.count, 'images'):
    host.say(warning)
  host.say(f'features of {images.count:,} images, {extractor.name}')
  found = references.make(
    extractor, images, flags.batch_size, flags.features, flags.seed
  )
  host.say(table(found))
  if jax.process_index() == 0:
    with targets.writing(flags.output, '--output'):
      references.save(flags.output, found)
  host.say(f'\n{flags.output}')


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('reference', __doc__)
  common.add_config(flags, required=False)
  flags.add_argument(
    '--workdir',
    metavar='DIR',
    help='folder of a run: the images of its data, as it prepares them',
  )
  flags.add_argument(
    '--images',
    type=pathlib.Path,
    metavar='PATH',
    help='a folder of images of one size, or an .npz file with arr_0',
  )
  run_flags.add_allow(flags)
  flags.add_argument(
    '--split',
    choices=('train', 'held-out'),
    default='train',
    help='split of the data of --config or --workdir (train)',
  )
  run_flags.add_network(flags, required=True)
  flags.add_argument(
    '--output',
    required=True,
    type=pathlib.Path,
    metavar='FILE',
    help='.npz file with mu, sigma, mu_s, sigma_s, features and facts',
  )
  flags.add_argument(
    '--features',
    type=number(Natural),
    default=references.KEPT,
    help='images whose features are kept for precision, recall and the kernel '
    f'distance; 0 is none ({references.KEPT})',
  )
  flags.add_argument(
    '--seed', type=number(Seed), default=0, help='chooses these images (0)'
  )
  flags.add_argument(
    '--batch_size',
    type=number(Batch),
    help='images per call; default: 64 per device',
  )
  return flags


def table(found: references.Reference) -> str:
  """The facts of a reference in two columns."""
  facts = {k: v for k, v in found.facts().items() if v}
  return '\n'.join(f'{key:<12} {value}' for key, value in facts.items())


def _images(flags, overrides) -> ImageSet:
  if flags.images is not None:
    if overrides:
      raise ConfigError('--images: --config.KEY is for --config and --workdir')
    return open_images(flags.images)
  allow = trust.packages(flags.allow)
  if flags.config is not None:
    config = common.load_config(flags.config, overrides)
    # The user's own config may name any package.
    allow += trust.foreign(config)
  else:
    if allow:
      common.find_packages_in('.')
    config = workdirs.load_config(flags.workdir, allow)
    workdirs.check_blocks(config, flags.workdir)
    config = override(config, overrides)
  data, description = measure.images_in(
    config, assemble.make_data(config), allow
  )
  return of_data(
    data,
    data_name(description, data.digest),
    flags.split,
    measure.preparation_of(description),
  )
