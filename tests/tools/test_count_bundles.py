"""Bundles of loops within loops, bytes that are moved, and the rows made of both."""

from promptmad_jax.dry_run.hlo import CompiledProgram
from promptmad_jax.dry_run.targets import CHIPS
from tools.count_bundles import Schedule, moved_bytes, read_schedule, rows

# Two bundles; ten turns of one, three turns of two (one of them empty) and a last one; one more.
SCHEDULE = """= control target key start
LB: loop body

     0   :  { %7 = vsyncpa [#allocation4], 0 }
   0x1   :  { %8 = vsyncpa [#allocation5], 0 }
   0x2 LB: > { %p20_p1 = scmp.ge.s32.totalorder %s7_s1, 10 /* loop exit test */ }
   0x3 LB: >> { %p15_p5 = scmp.ge.s32.totalorder %s18_s18, 3 ;; %1 = sbr.rel (!%p15_p5) target }
   0x4   :  {}
   0x5   : > { %2 = dma.vmem_to_hbm [thread:$0]
base_bounds: (56, 56) */ }
   0x6   :  { %17 = sbr.rel (!%p20_p1) target = $region3 }
"""

PROGRAM = """HloModule jit_f

%cut (a: f32[100,8], b: f32[8], i: s32[]) -> f32[100,8] {
  %a = f32[100,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %part = f32[1,8]{1,0} dynamic-slice(%a, %i, %zero), dynamic_slice_sizes={1,8}
  %sum = f32[1,8]{1,0} add(%part, %b)
  ROOT %new = f32[100,8]{1,0} dynamic-update-slice(%a, %sum, %i, %zero)
}

ENTRY %main (x: f32[100,8], y: f32[8], i: s32[]) -> f32[100,8] {
  %x = f32[100,8]{1,0} parameter(0)
  %y = f32[8]{0:T(128)S(1)} parameter(1)
  %i = s32[] parameter(2)
  %one = f32[100,8]{1,0} fusion(%x, %y, %i), kind=kLoop, calls=%cut, x={"estimated_cycles":"3000"}
  %two = f32[100,8]{1,0} fusion(%one, %y, %i), kind=kLoop, calls=%cut, x={"estimated_cycles":"3000"}
  ROOT %whole = f32[100,8]{1,0} add(%two, %x), x={"estimated_cycles":"6000"}
}
"""


def test_the_loops_of_a_schedule_are_multiplied_out():
    assert read_schedule(SCHEDULE) == Schedule(2 + 10 * (1 + 3 * 2 + 1) + 1, unknown=0)
    without_bound = SCHEDULE.replace("%s18_s18, 3 ", "%s18_s18, %s2 ")
    assert read_schedule(without_bound) == Schedule(2 + 10 * (1 + 2 + 1) + 1, unknown=1)


def test_only_the_part_of_an_array_that_is_cut_is_moved():
    program = CompiledProgram(PROGRAM)
    one, _, whole = program.executed
    # A row is read and a row is written; y lies on the chip, and i takes four bytes.
    assert moved_bytes(program, one) == 4 * 8 + 4 * 8 + 4
    assert moved_bytes(program, whole) == 3 * 4 * 800


def test_an_instruction_takes_its_code_or_its_memory_whichever_is_longer():
    program, chip = CompiledProgram(PROGRAM), CHIPS["v5e"]
    one, two, whole = rows(program, {"one": Schedule(1500, 2)}, chip)
    # 1,500 of 1.5e9 cycles a second; the second is equal to the first; the third has no code.
    assert one == two
    assert (one.xla, one.code, one.longer, one.unknown) == (2e-3, 1e-3, 1e-3, 2)
    assert whole.code == whole.xla == 4e-3
    (slow,) = rows(program, {"whole": Schedule(1, 0)}, chip)[-1:]
    assert slow.longer == slow.memory == 1e3 * 9600 / chip.bandwidth
