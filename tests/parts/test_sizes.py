"""Parameter counts of all published sizes, by shapes alone."""

import re

import jax
import pytest

from arvision.tasks import assemble
from tests.configs import ALL

# Published counts, in millions. LlamaGen's XL, XXL, 3B and its model of captions
# (775M) are published with two or three digits; RAR's, MAR's (208, 479, 943) and
# TokenBridge's (486, 910) in whole millions, rounded or cut; of NAR and MaskGIT's
# tokenizer only 816M and 54M are published, and none of MAR's and
# BAR's tokenizers and of FlexVAR's transformers. Those are counted from the published
# layer sizes.
GENERATORS = {
  'var/imagenet256:d16': 310.28,
  'var/imagenet256:d20': 600.92,
  'var/imagenet256:d24': 1033.40,
  'var/imagenet256:d30': 2010.02,
  'var/imagenet512:d36': 2353.89,
  'flexvar/imagenet256:d16': 315.56,
  'flexvar/imagenet256:d20': 607.51,
  'flexvar/imagenet256:d24': 1041.31,
  'flexvar/imagenet256:d24_13': 1041.31,
  'flexvar/imagenet256:d24_512': 1041.31,
  'flowar/imagenet256:S': 171.7,
  'flowar/imagenet256:L': 586.9,
  'flowar/imagenet256:H': 1913.3,
  'flowar/imagenet256:S_disa': 171.7,
  'flowar/imagenet256:L_disa': 586.9,
  'flowar/imagenet256:H_disa': 1913.3,
  'llamagen/imagenet256:B': 110.9,
  'llamagen/imagenet256:L': 342.9,
  'llamagen/imagenet256:XL': 774.7,
  'llamagen/imagenet256:XXL': 1411.0,
  'llamagen/imagenet256:3B': 3096.7,
  'llamagen/t2i:256': 777.92,
  'llamagen/t2i:512': 777.92,
  'maskgit/imagenet256': 173.24,
  'titok/imagenet256:L-32': 177.20,
  'titok/imagenet256:B-64': 177.23,
  'titok/imagenet256:S-128': 294.99,
  'nar/imagenet256:B': 130.6,
  'nar/imagenet256:M': 295.4,
  'nar/imagenet256:L': 372.5,
  'nar/imagenet256:XL': 816.0,
  'rar/imagenet256:B': 260.92,
  'rar/imagenet256:L': 461.67,
  'rar/imagenet256:XL': 955.43,
  'rar/imagenet256:XXL': 1498.52,
  'bar/imagenet256:B': 415.3,
  'bar/imagenet256:L': 1107.8,
  'bar/imagenet256:B_2': 415.1,
  'bar/imagenet256:B_4': 415.8,
  'bar/imagenet512': 1110.7,
  'tokenbridge/imagenet256:L': 486.89,
  'tokenbridge/imagenet256:H': 910.04,
  'mar/imagenet256:B': 207.92,
  'mar/imagenet256:L': 478.33,
  'mar/imagenet256:H': 942.40,
  'mar/imagenet256:B_disa': 207.92,
  'mar/imagenet256:L_disa': 478.33,
  'mar/imagenet256:H_disa': 942.40,
  'xar/imagenet256:B': 172.64,
  'xar/imagenet256:L': 608.40,
  'xar/imagenet256:H': 1186.0,
}
# Configs of sizes that nobody published, or data sets of them.
OWN = re.compile(
  r'ablations/|var/imagenet1024|\w+/(tiny|digits|fashion_mnist|folder|emoji)'
)
TOKENIZERS = {
  'bar/tokenizer:256': 1137.356228,
  'bar/tokenizer:512': 1138.129598,
  'var/tokenizer': 108.948355,
  'llamagen/tokenizer': 71.883,
  'flexvar/tokenizer': 72.049827,
  'maskgit/tokenizer': 54.516,
  'mar/tokenizer': 66.456019,
  'titok/tokenizer:L-32': 641.055,
  'titok/tokenizer:B-64': 204.814,
  'titok/tokenizer:S-128': 83.675,
  'titok/tokenizer:L-32_warmup': 641.055,
  'titok/tokenizer:B-64_warmup': 204.814,
  'titok/tokenizer:S-128_warmup': 83.675,
  'titok/tokenizer:BL-64': 390.016,
  'titok/tokenizer:BL-128': 390.180,
  'titok/tokenizer:SL-256': 330.261,
}


SIZES = [
  *((name, count, 0.06) for name, count in GENERATORS.items()),
  *((name, count, 1e-3) for name, count in TOKENIZERS.items()),
]


@pytest.mark.parametrize(('name', 'count', 'error'), SIZES)
def test_parameters(name, count, error):
  shapes = assemble.trained_shapes(ALL[name]())
  millions = sum(x.size for x in jax.tree.leaves(shapes)) / 1e6
  assert millions == pytest.approx(count, abs=error)


def test_every_published_size_is_counted():
  published = {n for n in ALL if not OWN.match(n)}
  assert published == {*GENERATORS, *TOKENIZERS}
