"""Instructions, loops, source lines and times of a compiled program's text."""

import pytest

from promptmad_jax.dry_run.estimate import estimate, product_flops
from promptmad_jax.dry_run.hlo import CompiledProgram, nbytes
from promptmad_jax.dry_run.targets import CHIPS

TPU = """HloModule jit_f

FileNames
1 "/home/x/site-packages/jax/core.py"
2 "/home/x/promptmad_jax/models/net.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=2 function_name_id=1 line=12 end_line=12 column=1 end_column=2}
2 {file_name_id=1 function_name_id=1 line=99 end_line=99 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%body (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t = (s32[], f32[4]) parameter(0)
  %x = f32[4]{0} get-tuple-element(%t), index=1
  ROOT %y = f32[4]{0} fusion(%x), kind=kLoop, calls=%g, metadata={op_name="jit(f)/while/tanh" \
stack_frame_id=2}, backend_config={"window_config":{"estimated_cycles":"300"}}
}

%test (t: (s32[], f32[4])) -> pred[] {
  %bound = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %z = f32[4]{0} add(%a, %a), metadata={op_name="jit(f)/transpose(jvp())/add" stack_frame_id=1}, \
backend_config={"estimated_cycles":"500"}
  ROOT %loop = (s32[], f32[4]) while(%z), condition=%test, body=%body
}
"""

CUDA = """HloModule jit_f

%products (p: bf16[8,16], q: bf16[16,4]) -> f32[8,4] {
  %p = bf16[8,16]{1,0} parameter(0)
  %q = bf16[16,4]{1,0} parameter(1)
  ROOT %dot = f32[8,4]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (a: bf16[8,16], b: bf16[16,4], k: f32[3,3,5,6]) -> f32[8,4] {
  %a = bf16[8,16]{1,0} parameter(0)
  %b = bf16[16,4]{1,0} parameter(1)
  %i = f32[2,7,7,5]{3,2,1,0} parameter(2)
  %k = f32[3,3,5,6]{3,2,1,0} parameter(3)
  %conv = f32[2,7,7,6]{3,2,1,0} custom-call(%i, %k), window={size=3x3}, dim_labels=b01f_01io->b01f
  ROOT %f = f32[8,4]{1,0} fusion(%a, %b), kind=kCustom, calls=%products
}
"""


def test_loops_are_multiplied_out_and_lines_found():
    program = CompiledProgram(TPU)
    found = estimate(program, CHIPS["v5e"])
    assert found.seconds == pytest.approx((500 + 5 * 300) / 1.5e9)
    assert found.kernels == 1 + 5
    lines = {"models/net.py:12": 1500 / 1.5e9, "gradient of models/net.py:12": 500 / 1.5e9}
    assert found.by_line == pytest.approx(lines)


def test_products_of_fusions_and_library_calls():
    program = CompiledProgram(CUDA)
    conv, fusion = program.executed
    assert product_flops(program, conv) == 2 * (2 * 7 * 7 * 6) * (3 * 3 * 5)
    dot = program.computations["products"]["dot"]
    assert product_flops(program, dot) == 2 * (8 * 4) * 16
    assert nbytes(fusion.result) == 128 and nbytes("(bf16[3], pred[2,2])") == 10
    # Both are too small to take longer than the start of a kernel.
    assert estimate(program, CHIPS["h200"]).seconds == pytest.approx(2 * 2e-6)
