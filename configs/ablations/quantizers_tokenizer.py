"""One autoencoder of scikit-learn's digits with seven quantisers of eight bits.

    arvision train --config=ablations/quantizers_tokenizer:lfq \\
      --workdir=runs/ablations/quantizers_tokenizer_lfq

8 × 8 px become 4 × 4 tokens. `lookup` has a table of 256 codes (LlamaGen's), `lfq`
the signs of eight channels (MaskBit's), `bsq` those of a vector on a sphere
(Infinity's), `fsq` four channels of four levels, `bits` eight of two (BAR's),
`bernoulli` eight sampled bits (ELM's), and `levels` is a KL tokenizer whose four
channels are cut into four levels after its training (TokenBridge's). Encoder,
decoder, loss of pixels and schedule are the same; the weights of the other losses are
those of each paper.
"""

from arvision.configs import common
from arvision.configs.common import block
from arvision.configs.mar import digits_tokenizer as mar
from arvision.configs.maskbit import parts as maskbit
from arvision.configs.var import digits_tokenizer as var

BITS = 8
QUANTIZERS = {
  'lookup': common.unit_lookup(2**BITS, BITS),
  'lfq': maskbit.lfq(BITS, extra_until=0.1),
  'bsq': block(type='quantizers.bsq.BSQ', channels=BITS, ids=1),
  'fsq': block(type='quantizers.fsq.FSQ', levels=(4,) * (BITS // 2)),
  'bits': block(type='quantizers.fsq.SymmetricFSQ', levels=(2,) * BITS),
  'bernoulli': block(type='quantizers.bernoulli.Bernoulli', channels=BITS),
  'levels': mar.get_config().tokenizer.quantizer,
}
SIZES = tuple(QUANTIZERS)


def get_config(arg: str = 'lookup'):
  quantizer = common.size(arg or 'lookup', QUANTIZERS)
  config = common.new()
  config.tokenizer = block(
    type='tokenizers.autoencoder.Autoencoder',
    grid=(4, 4),
    quantizer=quantizer.copy_and_resolve_references(),
    **var.autoencoder(),
  )
  if arg == 'levels':
    config.tokenizer.encoder.z_channels = 2 * quantizer.channels
  var.recipe(config, l2=1.0)
  if arg != 'lookup':
    config.task.restart_after = 0  # there is no table of codes
  return common.locked(config)
