"""Recognizes the released network of a weight file by its keys."""

import re
from collections.abc import Iterable

# Name, config, and patterns that must all match some key ('!': none). The first
# match counts, so specific patterns come before shared ones.
_FAMILIES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
  ('NAR transformer', 'nar/imagenet256', (r'medusa_output\.',)),
  ('LlamaGen transformer', 'llamagen/t2i', (r'cls_embedding\.cap_proj\.',)),
  ('ELM transformer', 'elm/imagenet256', (r'tok_embedder\.(0\.)?weight',)),
  (
    'LlamaGen transformer',
    'llamagen/imagenet256',
    (r'cls_embedding\.embedding_table\.',),
  ),
  ('Infinity transformer', 'infinity/t2i', (r'text_proj_for_sos\.',)),
  (
    'Infinity tokenizer',
    'infinity/tokenizer',
    (r'encoder\.mid\.block_1\.norm1\.norm\.',),
  ),
  ('M-VAR transformer', 'mvar/imagenet256', (r'mamba\.in_proj\.',)),
  ('HMAR', 'hmar/imagenet256', (r'ns_blocks\.', r'mask_blocks\.')),
  ('HMAR network of masked tokens', 'hmar/imagenet256', (r'mask_embed\.',)),
  ('VAR transformer', 'var/imagenet256', (r'attn\.mat_qkv\.', r'lvl_embed\.')),
  ('FlexVAR transformer', 'flexvar/imagenet256', (r'attn\.mat_qkv\.',)),
  ('BAR transformer', 'bar/imagenet256', (r'lm_head\.t_embedder\.',)),
  ('RAR transformer', 'rar/imagenet256', (r'target_aware_pos_embed$',)),
  (
    'TokenBridge transformer',
    'tokenbridge/imagenet256',
    (r'channel_blocks\.',),
  ),
  ('Hi-MAR transformer', 'himar/imagenet256', (r'cond_diffloss\.',)),
  ('ARFlow transformer', 'arflow/imagenet256', (r'attn\.gt_proj\.',)),
  ('MAR transformer', 'mar/imagenet256', (r'diffloss\.',)),
  ('FlowAR transformer', 'flowar/imagenet256', (r'flownet\.',)),
  (
    'xAR transformer',
    'xar/imagenet256',
    (r'encoder_blocks\.', r'time_embed\.'),
  ),
  (
    'ACDiT transformer',
    'acdit/imagenet256',
    (r'x_embedder\.weight', r'attn\.q_norm\.'),
  ),
  ('MaskGIT-r transformer', 'recap/imagenet256', (r'mlm_layer\.fc\.',)),
  ('TiTok generator', 'titok/imagenet256', (r'(in|out)_blocks\.',)),
  ('TiTok generator', 'titok/imagenet256', (r'embeddings\.word_embeddings\.',)),
  ('BAR tokenizer', 'bar/tokenizer', (r'encoder\.trainable_encoder\.',)),
  ('TiTok tokenizer', 'titok/tokenizer', (r'latent_tokens$',)),
  ('ELM tokenizer', 'elm/tokenizer', (r'quantize\.proj\.0\.',)),
  ('VAR tokenizer', 'var/tokenizer', (r'quantize\.quant_resi\.',)),
  ('LlamaGen tokenizer', 'llamagen/tokenizer', (r'encoder\.conv_blocks\.',)),
  (
    'VQ-Diffusion transformer',
    'vq_diffusion/t2i',
    (r'content_emb\.emb\.', r'ln1_1\.linear\.'),
  ),
  (
    'VQ-Diffusion transformer',
    'vq_diffusion/imagenet256',
    (r'content_emb\.emb\.', r'ln2\.linear\.'),
  ),
  ('MaskBit generator', 'maskbit/imagenet256', (r'first_layer\.', r'mha\.')),
  ('MaskBit tokenizer', 'maskbit/tokenizer', (r'down_conv\.',)),
  ('MaskGIT tokenizer', 'maskgit/tokenizer', (r'encoder\.mid\.0\.',)),
  # A VQ tokenizer has the same keys and a codebook.
  (
    'KL autoencoder',
    'mar/tokenizer',
    (r'encoder\.mid\.attn_1\.', r'quant_conv\.', r'!quantize\.embedding'),
  ),
)


def looks_like(keys: Iterable[str]) -> str:
  """Names the network of a file, as part of a sentence.

  Args:
    keys: keys of the arrays in the file.

  Returns:
    'VAR tokenizer, which --config=var/tokenizer reads', or '' if unknown.
  """
  keys = [*keys]
  for name, config, patterns in _FAMILIES:
    if all(_has(keys, pattern) for pattern in patterns):
      return f'{name}, which --config={config} reads'
  return ''


def _has(keys, pattern):
  wanted = not pattern.startswith('!')
  form = re.compile(rf'(^|\.){pattern.removeprefix("!")}')
  return wanted == any(form.search(key) for key in keys)
