"""Parameter counts of all published sizes, by shapes alone."""

import re

import jax
import pytest

from arvision.tasks import assemble
from tests.configs import ALL

# Published counts, in millions. Where only a rounded one is published or none, the
# count is that of the published layer sizes: ACDiT, ARFlow, LlamaGen from XL on and
# its model of captions, RAR, MAR, TokenBridge, NAR, FlexVAR's and ELM's transformers,
# MaskBit, Infinity, NFIG, M-VAR, HMAR, ReCAP, VQ-Diffusion, the tokenizers of MaskGIT
# and BAR.
# Token-Shuffle's 2.7B have a vocabulary of text.
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
  'mvar/imagenet256:d12': 198.44,
  'mvar/imagenet256:d16': 464.16,
  'mvar/imagenet256:d20': 900.53,
  'mvar/imagenet256:d24': 1550.07,
  'mvar/imagenet256:d32': 3658.71,
  'hmar/imagenet256:d16': 467.69,
  'hmar/imagenet256:d20': 845.52,
  'hmar/imagenet256:d24': 1384.33,
  'hmar/imagenet256:d30': 2556.32,
  'hmar/imagenet256:d16_nsp': 310.28,
  'hmar/imagenet256:d20_nsp': 600.92,
  'hmar/imagenet256:d24_nsp': 1033.40,
  'hmar/imagenet256:d30_nsp': 2010.02,
  'nfig/imagenet256': 310.28,
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
  'token_shuffle/t2i': 2461.94,
  'ctf/imagenet256:B': 86.51,
  'ctf/imagenet256:L': 310.41,
  'ctf/imagenet256:XL': 734.07,
  'elm/imagenet256:B-2-10': 90.05,
  'elm/imagenet256:L-1-16': 443.57,
  'elm/imagenet256:L-2-10': 315.65,
  'elm/imagenet256:L-2-12': 328.23,
  'elm/imagenet256:L-3-8': 314.08,
  'elm/imagenet256:XL-2-12': 757.00,
  'elm/imagenet256:XXL-2-12': 1390.53,
  'elm/imagenet256:2B-2-12': 1909.46,
  'elm/imagenet256:L-1-16-mlm': 377.58,
  'elm/imagenet256:L-2-10-mlm': 311.46,
  'elm/imagenet256:XL-2-12-mlm': 739.65,
  'maskgit/imagenet256': 173.24,
  'maskbit/imagenet256:10': 304.73,
  'maskbit/imagenet256:12': 304.80,
  'maskbit/imagenet256:14': 304.93,
  'maskbit/imagenet256:16': 305.19,
  'maskbit/imagenet256:18': 305.72,
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
  'infinity/t2i:layer12_256': 125.15,
  'infinity/t2i:layer16_256': 361.58,
  'infinity/t2i:layer24_256': 940.87,
  'infinity/t2i:layer32_256': 2256.60,
  'infinity/t2i:layer40_256': 4716.29,
  'infinity/t2i:layer48_256': 8767.04,
  'infinity/t2i:2b_256': 2204.56,
  'infinity/t2i:2b_512': 2204.56,
  'infinity/t2i:2b_1024': 2204.56,
  'infinity/t2i:8b_512': 8375.79,
  'infinity/t2i:8b_1024': 8375.79,
  'mar/imagenet256:B': 207.92,
  'mar/imagenet256:L': 478.33,
  'mar/imagenet256:H': 942.40,
  'mar/imagenet256:B_disa': 207.92,
  'mar/imagenet256:L_disa': 478.33,
  'mar/imagenet256:H_disa': 942.40,
  'himar/imagenet256:B': 244.60,
  'himar/imagenet256:L': 529.36,
  'himar/imagenet256:H': 1090.77,
  'arflow/imagenet256:S': 34.74,
  'arflow/imagenet256:B': 137.66,
  'arflow/imagenet256:L': 483.56,
  'arflow/imagenet256:XL': 712.74,
  'arflow/imagenet256:XL_4': 712.62,
  'arflow/imagenet256:XL_8': 713.23,
  'acdit/imagenet256:B': 130.3,
  'acdit/imagenet256:L': 457.9,
  'acdit/imagenet256:XL': 674.9,
  'acdit/imagenet256:H': 951.0,
  'recap/imagenet256:maskgit': 193.66,
  'recap/imagenet256:mar_L': 478.33,
  'recap/imagenet256:mar_H': 942.40,
  'smdm/imagenet256:34M': 35.12,
  'smdm/imagenet256:113M': 115.61,
  'smdm/imagenet256:336M': 338.71,
  'smdm/imagenet256:1028M': 1033.14,
  'vq_diffusion/imagenet256': 518.03,
  'vq_diffusion/t2i:coco': 388.82,
  'vq_diffusion/t2i:ithq': 1359.31,
  'xar/imagenet256:B': 172.64,
  'xar/imagenet256:L': 608.40,
  'xar/imagenet256:H': 1186.0,
}
# Configs of sizes that nobody published, or data sets of them.
OWN = re.compile(
  r'ablations/|var/imagenet1024|\w+/(tiny|digits|fashion_mnist|folder|emoji|avatars)'
)
TOKENIZERS = {
  'bar/tokenizer:256': 1137.356228,
  'bar/tokenizer:512': 1138.129598,
  'var/tokenizer': 108.948355,
  'nfig/tokenizer': 108.948355,
  'llamagen/tokenizer': 71.883,
  'ctf/tokenizer': 414.810763,
  'flexvar/tokenizer': 72.049827,
  'elm/tokenizer:16': 63.029139,
  'elm/tokenizer:20': 63.031191,
  'elm/tokenizer:24': 63.033243,
  'elm/tokenizer:16_deterministic': 63.029139,
  'maskgit/tokenizer': 54.516,
  'maskbit/tokenizer:10': 54.469,
  'maskbit/tokenizer:12': 54.479,
  'maskbit/tokenizer:14': 54.489,
  'maskbit/tokenizer:16': 54.500,
  'maskbit/tokenizer:18': 54.510,
  'maskbit/tokenizer:vqgan_plus_10': 55.991,
  'maskbit/tokenizer:vqgan_plus_12': 55.008,
  'mar/tokenizer': 66.456019,
  'acdit/tokenizer': 83.653863,
  'titok/tokenizer:L-32': 641.055,
  'titok/tokenizer:B-64': 204.814,
  'titok/tokenizer:S-128': 83.675,
  'titok/tokenizer:L-32_warmup': 641.055,
  'titok/tokenizer:B-64_warmup': 204.814,
  'titok/tokenizer:S-128_warmup': 83.675,
  'titok/tokenizer:BL-64': 390.016,
  'titok/tokenizer:BL-128': 390.180,
  'titok/tokenizer:SL-256': 330.261,
  'titok/tokenizer:LL-32_kl': 606.879604,
  'titok/tokenizer:BL-64_kl': 389.418,
  'titok/tokenizer:BL-128_kl': 389.582,
  'infinity/tokenizer:d16': 109.9706,
  'infinity/tokenizer:d24': 110.0443,
  'infinity/tokenizer:d32': 110.1181,
  'infinity/tokenizer:d64': 110.4130,
  'infinity/tokenizer:d56': 81.6242,
  'vq_diffusion/tokenizer:f16': 72.128899,
  'vq_diffusion/tokenizer:f8': 65.532547,
}


SIZES = [
  *((name, count, 0.06) for name, count in GENERATORS.items()),
  *((name, count, 1e-3) for name, count in TOKENIZERS.items()),
]


def _marked():
  """Sizes of a config differ in numbers; all but the first run with `slow`."""
  seen = set()
  for row in SIZES:
    config = row[0].partition(':')[0]
    yield pytest.param(*row, marks=[pytest.mark.slow] * (config in seen))
    seen.add(config)


@pytest.mark.parametrize(('name', 'count', 'error'), [*_marked()])
def test_parameters(name, count, error):
  shapes = assemble.trained_shapes(ALL[name]())
  millions = sum(x.size for x in jax.tree.leaves(shapes)) / 1e6
  assert millions == pytest.approx(count, abs=error)


def test_the_fine_stage_of_ctf_is_as_large_as_llamagen_l():
  """343 M, of which the tokenizer and the map of clusters are no part."""
  shapes = assemble.trained_shapes(ALL['ctf/tokenizer']())
  fine = [v for k, v in shapes.items() if k.startswith('fine_')]
  count = sum(x.size for x in jax.tree.leaves(fine))
  assert count / 1e6 == pytest.approx(
    GENERATORS['llamagen/imagenet256:L'], 1e-4
  )


def test_smdm_without_embeddings_has_the_published_sizes():
  """pretrain/train_mdm.py: model_para_config."""
  shapes = assemble.trained_shapes(ALL['smdm/imagenet256:113M']())
  backbone = shapes['backbone'].items()
  inner = [x for k, v in backbone if k != 'input' for x in jax.tree.leaves(v)]
  assert sum(x.size for x in inner) == 113_265_408


def test_every_published_size_is_counted():
  published = {n for n in ALL if not OWN.match(n)}
  assert published == {*GENERATORS, *TOKENIZERS}
