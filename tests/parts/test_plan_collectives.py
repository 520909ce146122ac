"""Collectives are read out of the text of compiled programs."""

import pytest

from arvision.plan.collectives import moved, read

# What the compilers wrote, without the lines that say nothing here.
_CPU = """
HloModule jit_f, is_scheduled=true, num_partitions=8

%slice_of (param_0: f32[8,64], param_1: s32[], param_2: s32[]) -> f32[8,32] {
  %param_0 = f32[8,64]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %param_2 = s32[] parameter(2)
  ROOT %ds = f32[8,32]{1,0} dynamic-slice(%param_0, %param_1, %param_2), \
dynamic_slice_sizes={8,32}
}

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

%body (param: (s32[], f32[8,64], /*index=2*/f32[16,32])) -> (s32[], f32[8,64], \
/*index=2*/f32[16,32]) {
  %param = (s32[], f32[8,64]{1,0}, /*index=2*/f32[16,32]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%param), index=0
  %zero = s32[] constant(0)
  %a = f32[8,64]{1,0} get-tuple-element(%param), index=1
  %w = f32[16,32]{1,0} get-tuple-element(%param), index=2
  %all-gather.1 = f32[64,32]{1,0} all-gather(%w), channel_id=2, \
replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, use_global_device_ids=true
  %all-reduce.1 = f32[8,64]{1,0} all-reduce(%a), channel_id=4, \
replica_groups=[4,2]<=[8], use_global_device_ids=true, to_apply=%sum
  %cut = f32[8,32]{1,0} fusion(%all-reduce.1, %zero, %i), kind=kLoop, \
calls=%slice_of
  %all-reduce.2 = (f32[8,64]{1,0}, f32[4]{0}) all-reduce(%a, %b), \
channel_id=5, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, \
to_apply=%sum
  %one = f32[8,64]{1,0} get-tuple-element(%all-reduce.2), index=0
  %two = f32[4]{0} get-tuple-element(%all-reduce.2), index=1
  %cut.1 = f32[8,32]{1,0} fusion(%one, %zero, %i), kind=kLoop, calls=%slice_of
  %sum.2 = f32[4]{0} add(%two, %two)
  ROOT %tuple = (s32[], f32[8,64]{1,0}, f32[16,32]{1,0}) tuple(%i, %a, %w)
}

%condition (param.1: (s32[], f32[8,64], f32[16,32])) -> pred[] {
  %param.1 = (s32[], f32[8,64]{1,0}, f32[16,32]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%param.1), index=0
  %end = s32[] constant(5)
  ROOT %less = pred[] compare(%i.1, %end), direction=LT
}

ENTRY %main (p: f32[8,64], q: f32[16,32]) -> f32[8,64] {
  %p = f32[8,64]{1,0} parameter(0)
  %q = f32[16,32]{1,0} parameter(1)
  %first = s32[] constant(0)
  %start = s32[] copy(%first)
  %all = f32[8,64]{1,0} all-reduce(%p), channel_id=1, replica_groups={}, \
to_apply=%sum
  %tuple.1 = (s32[], f32[8,64]{1,0}, f32[16,32]{1,0}) tuple(%start, %all, %q)
  %loop = (s32[], f32[8,64]{1,0}, f32[16,32]{1,0}) while(%tuple.1), \
condition=%condition, body=%body KNOWN
  ROOT %out = f32[8,64]{1,0} get-tuple-element(%loop), index=1
}
"""
_KNOWN = ', backend_config={"known_trip_count":{"n":"7"},"dynamic":[]}'


def _by_name(text):
  return {c.name: c for c in read(text)}


def test_what_a_cpu_program_sends():
  found = _by_name(_CPU.replace(' KNOWN', _KNOWN))
  gather = found['all-gather.1']
  assert (gather.kind, gather.result_bytes) == ('all-gather', 64 * 32 * 4)
  assert (gather.group, gather.times) == ((0, 2, 4, 6), 7)
  assert gather.axes({'fsdp': 4, 'tensor': 2}) == ('fsdp',)
  assert gather.moved_bytes == 7 * 64 * 32 * 4 * 3 // 4
  pair = found['all-reduce.2']
  assert pair.result_bytes == (8 * 64 + 4) * 4
  assert pair.group == (0, 2, 4, 6)
  whole = found['all']
  assert (whole.group_size, whole.times) == (8, 1)
  assert whole.axes({'fsdp': 4, 'tensor': 2}) == ('fsdp', 'tensor')
  assert whole.moved_bytes == 2 * 8 * 64 * 4 * 7 // 8


def test_an_all_reduce_that_is_cut_afterwards_is_marked():
  found = _by_name(_CPU.replace(' KNOWN', _KNOWN))
  assert found['all-reduce.1'].kind == 'all-reduce'
  assert found['all-reduce.1'].sliced == (True,)
  assert found['all-reduce.2'].sliced == (True, False)
  assert found['all'].sliced == (False,)


def test_rounds_are_read_off_the_condition_where_they_are_not_said():
  assert _by_name(_CPU.replace(' KNOWN', ''))['all-gather.1'].times == 5
  text = _CPU.replace(' KNOWN', '').replace('constant(5)', 'parameter(1)')
  gather = _by_name(text)['all-gather.1']
  assert (gather.times, gather.known) == (1, False)
  assert _by_name(text)['all'].known


_TPU = """
HloModule jit_f, is_scheduled=true, num_partitions=8

%begin (p0: bf16[1,128,256]) -> (bf16[1,128,256], bf16[1,512,256], u32[]) {
  %p0 = bf16[1,128,256]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.36 = bf16[1,512,256]{2,1,0:T(8,128)(2,1)} all-gather(%p0), \
channel_id=14, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={1}
  ROOT %custom-call.4 = (bf16[1,128,256]{2,1,0:T(8,128)(2,1)S(1)}, \
bf16[1,512,256]{2,1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}) \
custom-call(%all-gather.36), custom_call_target="AsyncCollectiveStart"
}

%end (p1: bf16[1,128,256]) -> bf16[1,512,256] {
  %p1 = bf16[1,128,256]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.40 = bf16[1,512,256]{2,1,0:T(8,128)(2,1)} all-gather(%p1), \
channel_id=14, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={1}
  ROOT %custom-call.6 = bf16[1,512,256]{2,1,0:T(8,128)(2,1)S(1)} \
custom-call(%p1, %all-gather.40), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (input: f32[512,256]) -> f32[128,256] {
  %input = f32[512,256]{1,0:T(8,128)S(1)} parameter(0)
  %all-reduce.8 = f32[512,256]{1,0:T(8,128)} all-reduce(%input), \
channel_id=12, replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%sum
  %at = s32[]{:T(128)} constant(0)
  ROOT %ds = f32[128,256]{1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.8, \
%at, %at), dynamic_slice_sizes={128,256}
}

ENTRY %main (a: bf16[1,128,256], g: f32[512,256]) -> f32[128,256] {
  %a = bf16[1,128,256]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %g = f32[512,256]{1,0:T(8,128)S(1)} parameter(1)
  %start = (bf16[1,128,256]{2,1,0:T(8,128)(2,1)S(1)}, \
bf16[1,512,256]{2,1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}) fusion(%a), \
kind=kCustom, calls=%begin
  %done = bf16[1,512,256]{2,1,0:T(8,128)(2,1)S(1)} fusion(%a), kind=kCustom, \
calls=%end
  ROOT %fusion.32 = f32[128,256]{1,0:T(8,128)S(1)} fusion(%g), kind=kCustom, \
calls=%all-reduce-scatter.1
}
"""


def test_what_a_tpu_program_sends():
  gather, scatter = read(_TPU)
  assert (gather.kind, gather.result_bytes) == ('all-gather', 2 * 512 * 256)
  assert (scatter.kind, scatter.result_bytes) == (
    'reduce-scatter',
    4 * 128 * 256,
  )
  assert scatter.group == (0, 2, 4, 6)
  assert moved([gather, scatter]) == {
    'all-gather': 2 * 512 * 256 * 3 // 4,
    'reduce-scatter': 4 * 512 * 256 * 3 // 4,
  }


@pytest.mark.parametrize(
  ('line', 'kind', 'size', 'group'),
  [
    (
      '(f32[2,8]{1,0}, f32[8,8]{1,0}) all-gather-start(%a), '
      'replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}',
      'all-gather',
      256,
      (0, 1, 2, 3),
    ),
    (
      '((f32[2]{0}, s8[3]{0}), (f32[16]{0}, s8[24]{0})) '
      'all-gather-start(%a, %b), replica_groups=[1,8]<=[8]',
      'all-gather',
      64 + 24,
      tuple(range(8)),
    ),
    (
      'f32[8]{0} all-reduce-start(%a), to_apply=%sum, '
      "replica_groups=mesh['x'=8] {'x':(2)2}",
      'all-reduce',
      32,
      (0, 2),
    ),
    (
      '((f32[8]{0}), f32[4]{0}) reduce-scatter-start(%a), '
      'replica_groups=[4,2]<=[8], calls=%async',
      'reduce-scatter',
      16,
      (0, 1),
    ),
    (
      '(bf16[4]{0}, bf16[4]{0}) all-to-all(%a, %b), replica_groups=[4,2]<=[8]',
      'all-to-all',
      16,
      (0, 1),
    ),
    (
      '(pred[6]{0}, pred[6]{0}, u32[], u32[]) collective-permute-start(%a), '
      'source_target_pairs={{0,1},{1,0}}',
      'collective-permute',
      6,
      (0, 1),
    ),
  ],
)
def test_other_forms(line, kind, size, group):
  (found,) = read(f'ENTRY %main (a: f32[8]) -> f32[8] {{\n  %c = {line}\n}}')
  assert (found.kind, found.result_bytes) == (kind, size)
  assert found.group == group


def test_of_a_conditional_the_larger_branch_counts():
  branch = """
%{name} (a: f32[{n}]) -> f32[{n}] {{
  %a = f32[{n}]{{0}} parameter(0)
  ROOT %{name}.sum = f32[{n}]{{0}} all-reduce(%a), replica_groups=[4,2]<=[8], \
to_apply=%sum
}}
"""
  text = branch.format(name='few', n=8) + branch.format(name='many', n=64)
  text += (
    '\nENTRY %main (i: s32[], a: f32[8]) -> f32[] {\n  ROOT %x = f32[] '
    'conditional(%i, %a, %a), branch_computations={%few, %many}\n}'
  )
  assert [c.name for c in read(text)] == ['many.sum']


def test_a_text_without_a_program_is_refused():
  with pytest.raises(ValueError, match='ENTRY'):
    read('HloModule jit_f')
