"""Plants faults one by one and checks that the tests see each of them.

    python tests/faults.py                       all faults
    python tests/faults.py NAME ... --jobs 2     these faults, two at a time
    python tests/faults.py --list                their names, files and reasons

The script copies the tracked files to a temporary folder. There it first runs the named tests on
the unchanged code: this control must be green. Then, for each fault, it replaces one text in one
file, runs the tests that the fault names, expects a test to fail (red), and restores the file.

The exit status is 0 if the control is green and every fault is red. It is 1 if a fault stays green,
if the control is red, or if a fault cannot be planted: its old text must occur exactly once in its
file. A fault that stays green means that a test is missing.

pytest does not collect this file. `test_package.py` checks that the faults still apply.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600  # seconds for the tests of one fault, which may never end


class Fault(NamedTuple):
    """A fault, and the tests that must see it.

    Attributes:
      name: unique, in lower case, with hyphens.
      file: in which the text is replaced, relative to the root of the repository.
      old: the text to replace; it occurs exactly once in the file.
      new: the faulty text.
      tests: pytest node ids, the cheapest that see the fault. One that fails is enough.
      why: one sentence, what goes wrong.
    """

    name: str
    file: str
    old: str
    new: str
    tests: list[str]
    why: str


UNBIASED = "tests/estimators/test_unbiasedness.py::test_the_streaming_estimator_is_unbiased"
LOOK_BACK = "tests/estimators/test_unbiased_tbptt.py::"
FIRST_STEP = "tests/unrolls/test_first_step.py::"
UNCOUNTED = "tests/unrolls/test_uncounted.py::"
CRITIC = "tests/estimators/test_critic.py::"
EVALUATION = "tests/test_evaluation.py::"
CHUNKS = "tests/estimators/test_stream_chunks.py::"
LONG_MEMORY = "tests/experiments/long_memory/test_long_memory.py::"
ATTENTIVE = "tests/experiments/attentive_backtracking/test_attentive_backtracking.py::"
COMING_FROM = "tests/test_coming_from.py::"
LASTING = "tests/estimators/test_lasting_leaves.py::"
WEIGHTS = "tests/estimators/test_weights_and_positions.py::"
COMPLEX = "tests/estimators/test_complex_numbers.py::"
NARROW = "tests/estimators/test_narrow_floats.py::"
BAD_INPUT = "tests/estimators/test_bad_input.py::"
COMMON = "tests/experiments/common/"
SWEEP = "tests/experiments/sweep/test_sweep.py::"
COMMAND_LINES = "tests/experiments/test_command_lines.py::"
PTB = "tests/experiments/ptb/"
MEMORY = "tests/experiments/memory/test_memory_study.py::"
PPO = "tests/experiments/recurrent_ppo/test_recurrent_ppo_study.py::"
K1K2 = "tests/experiments/k1k2/test_k1k2_study.py::"
FORCING = "tests/experiments/teacher_forcing/test_teacher_forcing_study.py::"
PHASE = "tests/experiments/phase/test_phase.py::"
HYPER = "tests/experiments/hyperparameters/test_hyperparameters.py::"
LOOK_BACK_STUDY = "tests/experiments/look_back/test_look_back_study.py::"
LAW_OF_LOOK_BACKS = "tests/truncation/test_look_back.py::"
STREAMING = "tests/estimators/test_streaming.py::"
REPLAY = f"{STREAMING}test_replay_equals_the_gated_unroll"
SEGMENTS = f"{STREAMING}test_segment_by_segment"
DRAWS = f"{STREAMING}test_own_boundaries_are_those_of_sample_gates"
COMPILATION = "tests/estimators/test_compilation.py::"
DATA_PARALLEL = "tests/test_data_parallel.py::"
REGISTRY = "tests/estimators/test_registry.py::"
K1_K2 = "tests/estimators/test_tbptt_k1_k2.py::"
ONLINE = "tests/estimators/test_online.py::"
PERTURBED = "tests/estimators/test_perturbed.py::"
FORWARD = "tests/estimators/test_forward_gradient.py::"
RUN_PASS = "tests/estimators/test_run_pass.py::"
RANDOM = "tests/estimators/test_random_lengths.py::"
ADAPTIVE = "tests/estimators/test_adaptive.py::"
LAWS = "tests/truncation/test_laws.py::"
RECURSION = "tests/unrolls/test_recursion.py::test_it_follows_the_equation"
FUSED = "tests/unrolls/test_fused.py::"
UNROLL = "tests/unrolls/test_unroll.py::"
GATE = "tests/unrolls/test_gate.py::"
CHECKPOINT = "tests/unrolls/test_checkpoint.py::"
ADAPTERS = "tests/adapters/test_adapters.py::"
RECIPES = "tests/test_recipes.py::"
SAB = "tests/cells/test_sab.py::"
RUNS = "tests/contrib/test_independent_runs.py::"
COUPLINGS = "tests/contrib/test_couplings.py::"
AUXILIARY = "tests/contrib/test_auxiliary_loss.py::"
TARGETS = "tests/contrib/test_target_propagation.py::"
DIAGNOSTICS = "tests/diagnostics/"

LIBRARY_FAULTS = [
    Fault(
        "sums-over-devices-in-the-loops",
        "artbp/estimators/segmentwise.py",
        "        params = _devices.on_each(params, axes)\n",
        "",
        [f"{DATA_PARALLEL}test_one_sum_over_the_devices_an_update"],
        "The gradient is summed over the devices at every chunk of steps.",
    ),
    Fault(
        "look-back-sums-over-devices-in-the-loops",
        "artbp/estimators/stepwise.py",
        "        params = _devices.on_each(params, axes)\n",
        "",
        [f"{DATA_PARALLEL}test_one_sum_over_the_devices_an_update"],
        "The gradient of a look-back is summed over the devices at every chunk of steps.",
    ),
    Fault(
        "mean-over-the-rows-of-a-device",
        "artbp/unrolls/readout.py",
        "    if not isinstance(stream, RowsOfDevice):\n        return\n",
        "    return\n",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "A loss that is a mean over rows gives n times its gradient on n devices.",
    ),
    Fault(
        "losses-of-another-number-of-rows",
        "artbp/unrolls/readout.py",
        "rows != (stream.num_rows,)",
        "rows == ()",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "An array of all rows is given to each device, and its losses are counted n times.",
    ),
    Fault(
        "shared-array-is-split",
        "artbp/data_parallel.py",
        "while shared := shared_by_rows(split):",
        "while shared := set():",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "An array that all rows share has as many entries as there are rows, by chance.",
    ),
    Fault(
        "shared-arrays-that-are-combined-are-split",
        "artbp/data_parallel.py",
        "[*combinations(unclear, 1), *combinations(unclear, 2)]",
        "[*combinations(unclear, 1)]",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "Two shared arrays that are multiplied with each other have both no rows.",
    ),
    Fault(
        "data-parallel-traces-at-every-call",
        "artbp/data_parallel.py",
        "    @jax.jit\n    def on_devices",
        "    def on_devices",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "What is split is found out by traces, once for each set of shapes.",
    ),
    Fault(
        "data-parallel-checks-no-arguments-of-init",
        "artbp/data_parallel.py",
        "        carry = check_init(params, carry, rng_key, initial_carry)\n",
        "",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "The init of the estimator is traced there, and traced values are not checked.",
    ),
    Fault(
        "learned-carry-of-the-first-device",
        "artbp/_devices.py",
        "num_rows * lax.axis_index(*axes), num_rows",
        "0 * lax.axis_index(*axes), num_rows",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "Each device takes its own rows of a carry that is learned by row.",
    ),
    Fault(
        "persistent-particles-differ-by-device",
        "artbp/estimators/stepwise.py",
        "fresh = begin(given, carry)",
        "fresh = begin(params, carry)",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "The perturbations of params are the same on every device.",
    ),
    Fault(
        "past-weights-differ-by-device",
        "artbp/estimators/tbptt_k1_k2.py",
        "steps.given_params, (first",
        "params, (first",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "The stored weights are the same on every device.",
    ),
    Fault(
        "uoro-of-rows-that-are-split",
        "artbp/estimators/stepwise.py",
        "if axes and undivided is not None:",
        "if False:",
        [f"{DATA_PARALLEL}test_what_is_split_and_what_is_refused"],
        "An estimator whose gradient is no sum over rows says so.",
    ),
    # The estimator: compensation, boundaries, normalisation.
    Fault(
        "compensation-dropped",
        "artbp/estimators/artbp.py",
        "Functions(cell, loss_fn, law.compensation if compensate else None)",
        "Functions(cell, loss_fn, None)",
        [f"{UNBIASED}[linear-polynomial 4]"],
        "Without compensation the gradient has the bias of truncation.",
    ),
    Fault(
        "compensation-one-age-late",
        "artbp/unrolls/chunk.py",
        "ages = first + jnp.arange(1, segment.chunk_size + 1, dtype=jnp.int32)",
        "ages = first + jnp.arange(2, segment.chunk_size + 2, dtype=jnp.int32)",
        [f"{UNBIASED}[linear-polynomial 4]"],
        "The gate of age k + 1 does not make up for a boundary of age k.",
    ),
    Fault(
        "compensation-one-age-early",
        "artbp/unrolls/chunk.py",
        "ages = first + jnp.arange(1, segment.chunk_size + 1, dtype=jnp.int32)",
        "ages = first + jnp.arange(segment.chunk_size, dtype=jnp.int32)",
        [f"{UNBIASED}[linear-polynomial 4]"],
        "The gate of age k − 1 does not make up for a boundary of age k.",
    ),
    Fault(
        "ages-restart-in-each-chunk",
        "artbp/unrolls/chunk.py",
        "ages = first + jnp.arange(1, segment.chunk_size + 1, dtype=jnp.int32)",
        "ages = jnp.arange(1, segment.chunk_size + 1, dtype=jnp.int32)",
        [f"{REPLAY}[linear-pow2-3]"],
        "The age counts from the boundary, not from the chunk or the piece.",
    ),
    Fault(
        "gradient-divided-by-sampled-length",
        "artbp/estimators/segmentwise.py",
        "    at_end = jnp.asarray(position == 0)\n",
        "    at_end = jnp.asarray(position == 0)\n"
        "    grads = jax.tree.map(lambda g: g / jnp.asarray(length, g.dtype), result.grads)\n"
        "    result = result._replace(grads=grads)\n",
        [f"{UNBIASED}[linear-polynomial 4]"],
        "The sampled length is correlated with the gradient, so dividing by it is a bias.",
    ),
    Fault(
        "loss-divided-by-sampled-length",
        "artbp/unrolls/chunk.py",
        "    loss_fn = segment.functions.loss_fn\n",
        "    def loss_fn(*args):\n"
        "        loss = segment.functions.loss_fn(*args)\n"
        "        return loss / segment.length.astype(loss.dtype)\n\n",
        [f"{UNBIASED}[linear-polynomial 4]"],
        "A mean over the sampled length is a bias, as the division of the gradient is.",
    ),
    Fault(
        "length-capped-at-block-size",
        "artbp/estimators/segmentwise.py",
        "length = jnp.minimum(drawn, num_steps - position)",
        "length = jnp.minimum(jnp.minimum(drawn, block_size), num_steps - position)",
        [f"{UNBIASED}[linear-polynomial 4]"],
        "A cap is a boundary with c = 1, which nothing compensates.",
    ),
    Fault(
        "drawn-length-one-longer-than-the-law",
        "artbp/estimators/artbp.py",
        "return law.length_of(rng_key, n, limit)",
        "return law.length_of(rng_key, n, limit) + 1",
        [f"{DRAWS}[dynamic]"],
        "The compensation would belong to other boundaries than those drawn.",
    ),
    Fault(
        "every-segment-draws-the-same-length",
        "artbp/truncation/base.py",
        "return self.sample_length(jax.random.fold_in(rng_key, n), limit)",
        "return self.sample_length(rng_key, limit)",
        [f"{DRAWS}[dynamic]"],
        "With one key for all segments, boundaries are not independent.",
    ),
    Fault(
        "host-plan-off-by-one-segment",
        "artbp/estimators/segmentwise.py",
        "lengths[int(n) - first]",
        "lengths[(int(n) + 1 - first) % _AHEAD]",
        [f"{DRAWS}[pow2]"],
        "The host-driven policies would take other boundaries than `sample_gates` states.",
    ),
    Fault(
        "boundary-off-by-one",
        "artbp/estimators/segmentwise.py",
        "position = (state.position + length) % num_steps",
        "position = (state.position + length + np.int32(1)) % num_steps",
        [f"{SEGMENTS}[dynamic]"],
        "The next segment must begin right behind the last step of this one.",
    ),
    Fault(
        "remainder-dropped-at-the-end",
        "artbp/estimators/segmentwise.py",
        "    position = (state.position + length) % num_steps\n",
        "    position = (state.position + length) % num_steps\n"
        "    position = jnp.where(num_steps - position < length, 0, position)\n",
        [f"{STREAMING}test_tbptt_equals_a_python_loop_with_stop_gradient"],
        "The steps behind the last whole segment have losses too.",
    ),
    Fault(
        "carry-not-restarted-at-the-end",
        "artbp/estimators/segmentwise.py",
        "return _tree.astype(grads, params), _tree.replace(begins, first_carry, carry)",
        "return _tree.astype(grads, params), carry",
        [f"{REPLAY}[linear-dynamic-3]"],
        "A new pass begins with the carry that `init` was given.",
    ),
    Fault(
        "pass-begins-with-the-initial-carry",
        "artbp/estimators/stepwise.py",
        "carry = _tree.replace(end_of_stream, state.first_carry, carry)",
        "carry = _tree.replace(end_of_stream, state.initial_carry, carry)",
        ["tests/estimators/test_initial_carry.py::test_a_pass_is_an_unroll[False-rtrl]"],
        "The carry after a reset is not that at the beginning of a pass.",
    ),
    Fault(
        "resets-to-the-first-carry",
        "artbp/estimators/base.py",
        "complete_initial_carry(carry, initial_carry), jnp.zeros((), jnp.int32)",
        "carry, jnp.zeros((), jnp.int32)",
        ["tests/estimators/test_initial_carry.py::test_a_pass_is_an_unroll[False-tbptt]"],
        "A reset puts the carry to zeros, or to the carry that was given for it.",
    ),
    Fault(
        "lasting-leaves-begin-a-pass-anew",
        "artbp/estimators/base.py",
        "    first_carry = _tree.where_given(initial_carry, carry)\n",
        "    first_carry = carry\n",
        [f"{LASTING}test_their_gradient_crosses_resets[rtrl]"],
        "The end of a pass leaves lasting leaves as they are.",
    ),
    Fault(
        "runs-begin-a-pass-with-lasting-leaves-anew",
        "artbp/contrib/independent_runs.py",
        "carries = carry, _tree.where_given(initial_carry, carry), initial_carry",
        "carries = carry, carry, initial_carry",
        ["tests/estimators/test_initial_carry.py::test_independent_runs_follow_the_same_rule"],
        "The same for many runs.",
    ),
    Fault(
        "lasting-leaves-need-rows",
        "artbp/estimators/stepwise.py",
        "check_resets(state.initial_carry, stream.resets)",
        "check_resets(state.carry, stream.resets)",
        [f"{LASTING}test_their_gradient_crosses_resets[rtrl]"],
        "Resets by row do not act on lasting leaves, which may have any shape.",
    ),
    Fault(
        "resets-cut-the-flow-of-lasting-leaves",
        "artbp/unrolls/recursion.py",
        "    no_flow = flow if initial_carry is None else _tree.partition(initial_carry)[0]\n",
        "    no_flow = flow\n",
        [f"{LASTING}test_their_gradient_crosses_resets[dynamic]"],
        "A reset does not replace them, so their cotangent flows on.",
    ),
    Fault(
        "fused-resets-cut-the-flow-of-lasting-leaves",
        "artbp/unrolls/fused.py",
        "            initial_carry=arguments.initial_carry,\n",
        "",
        [f"{LASTING}test_unrolls_leave_them[fused_unroll]"],
        "The same in `fused_unroll`.",
    ),
    Fault(
        "hidden-state-reset-in-the-backward-pass-alone",
        "artbp/cells/affine_recurrence.py",
        "        if initial is None:  # resets leave h as it is\n            return previous\n",
        "        if initial is None:\n            initial = jnp.zeros_like(ys[0])\n",
        [f"{LASTING}test_a_part_of_the_carry_of_an_lstm[hidden]"],
        "A part of the carry of a hand-written cell may last.",
    ),
    Fault(
        "particles-begin-a-pass-with-old-lasting-leaves",
        "artbp/estimators/stepwise.py",
        "fresh = begin(given, carry)",
        "fresh = begin(given, _tree.combine(state.first_carry, state.carry))",
        [f"{LASTING}test_every_estimator_leaves_them[pes]"],
        "The particles of PES begin a pass with the lasting leaves that the last step left.",
    ),
    Fault(
        "reverse-mode-not-refused",
        "artbp/_tree.py",
        '        if type(leaf).__name__ == "LinearizeTracer":',
        "        if False:",
        [f"{BAD_INPUT}test_reverse_mode_through_an_estimate"],
        "`jax.grad` through `estimate` fails deep inside JAX, or gives a truncated gradient.",
    ),
    Fault(
        "time-steps-counted-as-estimates",
        "artbp/estimators/segmentwise.py",
        "        num_steps=state.num_steps + length,\n",
        "        num_steps=state.num_steps + np.int32(1),\n",
        ["tests/estimators/test_time_steps.py::test_the_rate_is_that_of_the_time_step"],
        "The schedule counts time steps, of which a segment has many.",
    ),
    Fault(
        "padding-given-to-the-cell",
        "artbp/padding.py",
        "return xp.where(flags, leaf, first[None])",
        "return leaf",
        ["tests/test_padding.py::test_with_resets_and_a_mask[asarray0]"],
        "A mask on the losses does not remove NaN: 0 · NaN is NaN.",
    ),
    Fault(
        "padding-goes-on",
        "artbp/padding.py",
        "~exists if stream.resets is None",
        "None if stream.resets is None",
        ["tests/test_padding.py::test_a_state_that_would_overflow"],
        "A cell that runs on beyond the length of its row may overflow.",
    ),
    Fault(
        "keys-of-the-first-pass",
        "artbp/keys.py",
        "jnp.asarray(state.num_steps) - jnp.asarray(state.position)",
        "jnp.zeros((), jnp.int32)",
        ["tests/test_keys.py::test_two_passes_with_keys_of_their_own[rtrl]"],
        "Dropout masks must not repeat in every pass.",
    ),
    Fault(
        "extra-values-not-masked",
        "artbp/unrolls/readout.py",
        "jax.tree.map(total, extra))",
        "jax.tree.map(jnp.sum, extra))",
        ["tests/estimators/test_extra.py::test_they_are_summed_where_losses_count[rtrl]"],
        "Values beside the losses are summed where the losses count.",
    ),
    Fault(
        "evaluation-drops-the-rest",
        "artbp/evaluation.py",
        "run_chunk(sums, stream.num_steps - rest, rest) if rest else sums",
        "sums",
        [f"{EVALUATION}test_the_sums_are_those_of_the_estimates_of_a_pass[4-linear]"],
        "The steps behind the last whole chunk have losses too.",
    ),
    Fault(
        "evaluation-differentiates-what-does-not-count",
        "artbp/evaluation.py",
        "is_masked = mask is not None",
        "is_masked = False",
        [f"{EVALUATION}test_what_does_not_count_has_no_influence_on_a_gradient"],
        "A NaN target behind the mask reaches the gradient of the sums.",
    ),
    Fault(
        "evaluation-ignores-the-mask",
        "artbp/evaluation.py",
        "valid = exists if mask is None else masked(mask, exists)",
        "valid = exists if mask is None else masked(jnp.ones_like(mask), exists)",
        [f"{EVALUATION}test_the_sums_are_those_of_the_estimates_of_a_pass[256-linear]"],
        "A masked loss does not count.",
    ),
    Fault(
        "evaluation-runs-the-padding",
        "artbp/evaluation.py",
        "return _tree.select(exists, new_carry, carry), y",
        "return new_carry, y",
        [f"{EVALUATION}test_pieces_and_streams_of_a_loader"],
        "The carry stays where the stream ends; padding is no data.",
    ),
    Fault(
        "normalizer-ignored",
        "artbp/estimators/segmentwise.py",
        "lambda grad: grad / normalizer, grads)",
        "lambda grad: grad, grads)",
        [f"{STREAMING}test_normalizer_is_a_constant_on_the_gradient"],
        "The learning rate of a configuration depends on the normaliser.",
    ),
    # The segment kernels.
    Fault(
        "block-start-from-the-wrong-carry",
        "artbp/unrolls/dynamic.py",
        "kept = _tree.index(block_carries, block // stride)",
        "kept = _tree.index(block_carries, (block + 1) // stride)",
        [f"{REPLAY}[linear-dynamic-3]"],
        "A recomputed block must start from the carry that entered it.",
    ),
    Fault(
        "block-starts-spaced-by-the-stream",
        "artbp/unrolls/dynamic.py",
        "stride = (num_blocks + block_size - 1) // block_size",
        "stride = (stream.num_steps // block_size + block_size - 1) // block_size",
        [f"{STREAMING}test_recomputation_does_not_depend_on_the_stream"],
        "The work for a segment must not grow with the length of the stream.",
    ),
    Fault(
        "chunk-reads-beyond-its-block",
        "artbp/unrolls/chunk.py",
        "        *segment.inputs(offset + n * size, end),\n",
        "        *segment.inputs(offset + n * size, segment.length),\n",
        [f"{STREAMING}test_a_carry_never_meets_an_input_that_is_not_its_own[12]"],
        "Padding would pair a repeated carry with the input of the next block, where 0·NaN is NaN.",
    ),
    Fault(
        "padding-reads-unwritten-buffers",
        "artbp/unrolls/chunk.py",
        "return jnp.where(is_real, of_chunk, _tree.index(leaf, begin + last)[None])",
        "return of_chunk",
        [f"{STREAMING}test_a_resumed_state_goes_on_with_the_same_draws"],
        "Buffers may hold NaN from before; a mask does not remove it.",
    ),
    Fault(
        "flow-across-the-boundary",
        "artbp/unrolls/chunk.py",
        "        flow=_tree.zeros_like(_tree.partition(segment.carry_like)[0]),\n",
        "        flow=_tree.partition(segment.carry_like)[0],\n",
        [f"{REPLAY}[linear-dynamic-3]"],
        "Behind the last step of a segment the flow is zero.",
    ),
    Fault(
        "segment-resets-to-zeros",
        "artbp/unrolls/chunk.py",
        "entering = _tree.replace(resets[j], segment.initial_carry, carry)",
        "entering = _tree.select(resets[j], _tree.zeros_like(carry), carry)",
        [f"{REPLAY}[linear-exact-4]"],
        "After a reset the initial carry enters, which need not be zero.",
    ),
    Fault(
        "readout-gated-too",
        "artbp/unrolls/chunk.py",
        "return recurrence.pull_back(_tree.index(local, j), flow, _tree.index(y_cotangents, j))",
        "of_y = _tree.index(y_cotangents, j)\n"
        "        if gates is not None:\n"
        "            of_y = jax.tree.map(lambda y: y * gates[j].astype(y.dtype), of_y)\n"
        "        return recurrence.pull_back(_tree.index(local, j), flow, of_y)",
        [f"{UNBIASED}[linear-polynomial 4]"],
        "∂ℓ_t/∂s_t enters with weight 1; only the flow from step t + 1 is gated.",
    ),
    Fault(
        "pieces-in-the-wrong-order",
        "artbp/unrolls/static_lengths.py",
        "in zip(reversed(sizes), reversed(pieces), strict=True):",
        "in zip(sizes, pieces, strict=True):",
        [f"{REPLAY}[linear-pow2-3]"],
        "The backward pass of `exact` and `pow2` begins with the last piece.",
    ),
    Fault(
        "largest-power-of-two-first",
        "artbp/unrolls/static_lengths.py",
        "return small + [largest] * (length // largest)",
        "return [largest] * (length // largest) + small",
        [f"{COMPILATION}test_pieces_in_order"],
        "All pieces but the last run their forward pass twice, so the last must be the largest.",
    ),
    Fault(
        "rng-under-vmap",
        "artbp/unrolls/autodiff_recurrence.py",
        "self._batches = not vmap_changes_draws(closed)",
        "self._batches = True",
        [f"{STREAMING}test_the_way_back_sees_the_noise_of_the_forward_pass[rbg-normal]"],
        "Under vmap, rbg keys draw other noise than the forward pass did.",
    ),
    Fault(
        "sums-in-bfloat16",
        "artbp/_tree.py",
        "lambda total, leaf: total + leaf.astype(total.dtype), sums, tree)",
        "lambda total, leaf: (total.astype(leaf.dtype) + leaf).astype(total.dtype), sums, tree)",
        [f"{STREAMING}test_sums_over_steps_are_float32_or_wider"],
        "A sum of many bfloat16 terms loses those below a 256th of it.",
    ),
    # Segments under jax.vmap, in lockstep.
    Fault(
        "lockstep-carry-not-masked",
        "artbp/unrolls/chunk.py",
        "return segment.keep(begin + j, new_carry, carry), residuals",
        "return new_carry, residuals",
        [f"{COMPILATION}test_vmap_over_keys_equals_a_loop_over_keys[False]"],
        "The carry of a row that has ended must stay while the others go on.",
    ),
    Fault(
        "lockstep-deltas-not-masked",
        "artbp/unrolls/chunk.py",
        "        taken=taken,\n",
        "        taken=None,\n",
        [f"{COMPILATION}test_vmap_lets_nothing_flow_back_from_behind_an_ended_row"],
        "NaN in the cell behind a row's end would flow back as 0·NaN.",
    ),
    Fault(
        "lockstep-cell-sums-not-masked",
        "artbp/unrolls/chunk.py",
        "    cell_sums = segment.keep(first, cell_sums, state.cell_sums)\n",
        "",
        [f"{COMPILATION}test_vmap_ignores_what_an_ended_row_would_have_done[True]"],
        "NaN in the cell behind a row's end would reach its gradient as 0·NaN.",
    ),
    Fault(
        "lockstep-readout-sums-not-masked",
        "artbp/unrolls/chunk.py",
        "readout_sums=segment.keep(first, sums, state.readout_sums)",
        "readout_sums=sums",
        [f"{COMPILATION}test_vmap_ignores_what_an_ended_row_would_have_done[False]"],
        "NaN in the loss behind a row's end would reach its gradient as 0·NaN.",
    ),
    Fault(
        "lockstep-rule-dropped",
        "artbp/unrolls/batching.py",
        "one_row = functools.partial(kernel, axis_names=(*axis_names, name))",
        "one_row = functools.partial(kernel, axis_names=axis_names)",
        [f"{COMPILATION}test_vmap_does_not_select_over_buffers"],
        "JAX would select over all buffers at every step, which takes minutes.",
    ),
    Fault(
        "closure-over-tracers-accepted",
        "artbp/unrolls/closure.py",
        "        if isinstance(constant, jax.core.Tracer) and id(constant) not in known:\n",
        "        if False:\n",
        [f"{COMPILATION}test_a_class_with_a_recurrence_that_closes_over_what_is_mapped_is_refused"],
        "The batching rule sees arguments only: such a cell would run with the wrong array.",
    ),
    Fault(
        "closure-constants-not-arguments",
        "artbp/unrolls/closure.py",
        "        cell_constants, loss_constants, gate_constants, critic_constants = constants\n",
        "        cell_constants, _, gate_constants, critic_constants = constants\n",
        [f"{COMPILATION}test_vmap_over_what_the_cell_and_the_loss_close_over[False]"],
        "What a loss closes over may differ by row, so it has to be an argument of the kernel.",
    ),
    # Losses and masks.
    Fault(
        "mask-applied-to-ys",
        "artbp/unrolls/readout.py",
        "\n    def total(values: jax.Array) -> jax.Array:\n",
        "    def zeroed(y):\n"
        "        return jnp.where(_tree.align(valid, y), y, jnp.zeros_like(y))\n\n"
        "    losses = jax.vmap(loss_fn, (None, 0, 0))(params, jax.tree.map(zeroed, ys), targets)\n"
        "    valid = valid | True\n\n"
        "    def total(values: jax.Array) -> jax.Array:\n",
        [f"{REGISTRY}test_exactness_is_what_the_row_claims[bptt]"],
        "The loss of a zeroed y need not be zero: the cross-entropy of equal logits is ln V.",
    ),
    Fault(
        "mask-not-counted",
        "artbp/unrolls/readout.py",
        "    return ReadOut(loss_sum, counted, grads, y_cotangents)\n",
        "    if stream.mask is not None:\n"
        "        left_out = ~_tree.gather(stream.mask, steps)\n"
        "        num_losses = counted.num_losses + jnp.sum(left_out, dtype=jnp.int32)\n"
        "        counted = counted._replace(num_losses=num_losses)\n"
        "    return ReadOut(loss_sum, counted, grads, y_cotangents)\n",
        [f"{PERTURBED}test_follows_the_unperturbed_system[truncated_es]"],
        "loss_sum / num_losses is the mean over the losses that were summed.",
    ),
    Fault(
        "weights-of-the-mask-are-flags",
        "artbp/unrolls/readout.py",
        "values = _tree.align(weights, values).astype(dtype) * values.astype(dtype)\n",
        "values = values.astype(dtype)\n",
        [f"{WEIGHTS}test_a_float_mask_weights_the_losses[bptt]"],
        "A float mask weights the losses.",
    ),
    Fault(
        "weighted-sums-of-flags-are-integers",
        "artbp/unrolls/readout.py",
        "jnp.ones_like(mask[:1])",
        "jnp.ones_like(mask[:1], bool)",
        ["tests/estimators/test_extra.py::test_a_float_mask_weights_them[bptt]"],
        "A sum of weighted flags is no integer.",
    ),
    Fault(
        "mask-of-another-width-met-in-the-loop",
        "artbp/unrolls/readout.py",
        "jnp.ones_like(mask[:1])",
        "jnp.ones_like(mask[:1, ...], shape=(1,))",
        [f"{BAD_INPUT}test_a_mask_of_another_number_of_rows[rtrl]"],
        "The message would be about the loop around the loss, and not about the mask.",
    ),
    Fault(
        "weights-of-the-padding-are-checked",
        "artbp/padding.py",
        "by_row(stream.mask, xp.zeros_like)",
        "stream.mask",
        ["tests/test_padding.py::test_with_weights[asarray0]"],
        "Padding may hold anything, in the mask too.",
    ),
    Fault(
        "weight-of-zero-counts",
        "artbp/unrolls/readout.py",
        "    valid = valid.astype(bool)\n",
        "    valid = valid.astype(bool) | jnp.full_like(valid, weights is not None, dtype=bool)\n",
        [f"{WEIGHTS}test_a_float_mask_weights_the_losses[bptt]"],
        "A weight of 0 leaves the loss out, even where the target is NaN.",
    ),
    Fault(
        "weights-of-single-steps-are-flags",
        "artbp/estimators/stepwise.py",
        "valid = jnp.asarray(_tree.index(self.stream.mask, t))",
        "valid = jnp.asarray(_tree.index(self.stream.mask, t), bool)",
        [f"{WEIGHTS}test_a_float_mask_weights_the_losses[rtrl]"],
        "A float mask weights the losses of the estimators that go step by step too.",
    ),
    Fault(
        "weights-of-patterns-are-flags",
        "artbp/diagnostics/gate_gradients.py",
        "valid = jnp.asarray(stream.mask) if",
        "valid = jnp.asarray(stream.mask, bool) if",
        [f"{WEIGHTS}test_the_diagnostics_follow_the_weights"],
        "A float mask weights the losses in the diagnostics too.",
    ),
    Fault(
        "weights-of-the-monitor-are-flags",
        "artbp/diagnostics/shadow.py",
        "mask = exists if mask is None else masked(mask, exists)",
        "mask = exists if mask is None else masked(mask.astype(bool), exists)",
        [f"{WEIGHTS}test_the_diagnostics_follow_the_weights"],
        "A float mask weights the losses in the monitor too.",
    ),
    Fault(
        "any-weight-passes",
        "artbp/stream.py",
        "wrong = ~((weights >= 0) & (weights < np.inf))",
        "wrong = weights < 0",
        [f"{WEIGHTS}test_weights_that_are_refused[nan]"],
        "A weight of NaN would make every gradient NaN.",
    ),
    Fault(
        "any-flags-pass",
        "artbp/unrolls/checks.py",
        "    if flags is not None and flags.dtype != bool:",
        "    if False:",
        [f"{BAD_INPUT}test_lists_and_flags_of_another_dtype_in_a_stream[tbptt]"],
        "Resets of 0.5, or a mask of indices, are not flags.",
    ),
    Fault(
        "raw-keys-are-two-words",
        "artbp/_tree.py",
        "leaf.shape == raw_key_shape()",
        "leaf.shape == (2,)",
        ["tests/unrolls/test_unroll.py::test_one_raw_key_is_not_taken_for_rows"],
        "A raw key of rbg has four words, and would be taken for four rows.",
    ),
    Fault(
        "no-warning-of-a-first-carry-from-params",
        "artbp/estimators/base.py",
        "    check_carry_from_params(params, carry=carry, initial_carry=initial_carry)\n",
        "",
        ["tests/test_learned_carry.py::test_a_first_carry_made_from_the_params_is_refused"],
        "A learned first carry that is handed to init gets no gradient, which nobody would see.",
    ),
    Fault(
        "traced-numbers-in-a-list",
        "artbp/_tree.py",
        "        return jnp.asarray(value)\n    return np.asarray(value)",
        "        return np.asarray(value)\n    return np.asarray(value)",
        ["tests/unrolls/test_unroll.py::test_lists_may_hold_traced_numbers"],
        "NumPy cannot hold a traced number, so a list of such gates would be refused.",
    ),
    Fault(
        "no-swap-suggested",
        "artbp/unrolls/checks.py",
        "    if _change(carry, y) is None:",
        "    if _change(carry, new_carry) is None:",
        [f"{BAD_INPUT}test_a_cell_that_returns_the_carry_last[tbptt]"],
        "Haiku's cells return (y, carry); the message says what to do.",
    ),
    # The recursion, the gate, the unrolls.
    Fault(
        "recursion-gate-one-step-early",
        "artbp/unrolls/recursion.py",
        "gate = _tree.index(gates, t)",
        "gate = _tree.index(gates, t - 1)",
        [RECURSION],
        "gate_t multiplies what flows from step t + 1 into the carry after step t.",
    ),
    Fault(
        "recursion-gates-the-error-too",
        "artbp/unrolls/recursion.py",
        "        delta, entering = pull_back(t, gated)  #",
        "        delta, entering = pull_back(t, flow)\n"
        "        if gates is not None:\n"
        "            gate = _tree.index(gates, t)\n"
        "            gated = jax.tree.map(lambda x: cut_or_scale(x, gate), (delta, entering))\n"
        "            delta, entering = gated\n"
        "        #",
        [RECURSION],
        "The gate comes before e_t = ∂ℓ_t/∂s_t is added.",
    ),
    Fault(
        "recursion-ignores-resets",
        "artbp/unrolls/recursion.py",
        "entering = _tree.replace(reset, no_flow, entering)",
        "pass",
        [RECURSION],
        "Nothing flows back through a reset.",
    ),
    Fault(
        "recursion-delta-of-missing-steps",
        "artbp/unrolls/recursion.py",
        "delta = _tree.select(_tree.index(taken, t), delta, _tree.zeros_like(delta))",
        "delta = _tree.select(_tree.index(taken, t), delta, delta)",
        [RECURSION],
        "A step that a row does not take contributes no gradient.",
    ),
    Fault(
        "recursion-flow-through-missing-steps",
        "artbp/unrolls/recursion.py",
        "entering = _tree.select(_tree.index(taken, t), entering, flow)",
        "entering = _tree.select(_tree.index(taken, t), entering, entering)",
        [RECURSION],
        "The flow passes a step that a row does not take unchanged.",
    ),
    Fault(
        "gate-rounded-to-bfloat16",
        "artbp/unrolls/gate.py",
        "dtype = _tree.at_least_float32(leaf.dtype)",
        "dtype = leaf.dtype",
        [f"{GATE}test_gates_of_a_bfloat16_carry_are_taken_in_float32[200]"],
        "Rounded compensations multiply: after 200 steps they are far off.",
    ),
    Fault(
        "gate-multiplies-infinity-by-zero",
        "artbp/unrolls/gate.py",
        "return jnp.where(cut, jnp.zeros_like(leaf), scale(leaf, factor))",
        "return scale(leaf, factor)",
        [f"{GATE}test_a_cut_stops_an_overflowed_cotangent"],
        "A boundary must stop a cotangent that has overflowed; 0·∞ is NaN.",
    ),
    Fault(
        "gate-changes-infinite-values",
        "artbp/unrolls/gate.py",
        "    del factor\n    return leaf\n",
        "    stopped = jax.lax.stop_gradient(leaf)\n"
        "    return stopped + _tree.align(factor, leaf).astype(leaf.dtype) * (leaf - stopped)\n",
        [f"{GATE}test_values_that_are_not_finite_pass_unchanged"],
        "s + g·(s − s) is NaN where s is infinite.",
    ),
    Fault(
        "unroll-reset-not-cutting",
        "artbp/unrolls/unroll.py",
        "            carry = _tree.replace(reset_t, initial, carry)\n",
        "            kept = jax.tree.map(lambda c: c - jax.lax.stop_gradient(c), carry)\n"
        "            carry = _tree.select(\n"
        "                reset_t, jax.tree.map(jax.numpy.add, initial, kept), carry\n"
        "            )\n",
        [f"{UNROLL}test_a_reset_defaults_to_zeros_and_cuts"],
        "Nothing flows back through a reset.",
    ),
    Fault(
        "unroll-resets-to-zeros",
        "artbp/unrolls/arguments.py",
        "    initial_carry = _tree.as_arrays(initial_carry)\n",
        "    initial_carry = _tree.zeros_like(_tree.as_arrays(initial_carry))\n",
        [f"{UNROLL}test_gates_resets_and_lengths_match_the_loop[linear]"],
        "After a reset the initial carry enters, which need not be zero.",
    ),
    Fault(
        "unroll-steps-ended-rows",
        "artbp/unrolls/unroll.py",
        "carry, x = _tree.select(active, (carry, x), first)",
        "pass",
        [f"{UNROLL}test_a_row_that_has_ended_goes_nowhere_new[None-unroll]"],
        "A row beyond its length is stepped only where the cell has been finite: 0·NaN is NaN.",
    ),
    Fault(
        "checkpoint-remainder-lost",
        "artbp/unrolls/checkpointing.py",
        "    if not reverse and remainder:\n        state, last = _block(",
        "    if not reverse and remainder:\n        _, last = _block(",
        [f"{CHECKPOINT}test_values_and_gradients_are_those_of_the_plain_unroll[3-2-True-1]"],
        "The carry after the last step comes from the shorter block at the end.",
    ),
    Fault(
        "reverse-with-lengths-of-a-forward-run",
        "artbp/unrolls/unroll.py",
        "until_end = until_end + 1 if reverse else until_end - 1",
        "until_end = until_end - 1",
        [f"{UNROLL}test_reverse_is_a_flip_of_the_arrays"],
        "In reverse, the padding comes before the steps of a row.",
    ),
    Fault(
        "reverse-blocks-in-forward-order",
        "artbp/unrolls/checkpointing.py",
        "length=num_blocks, reverse=reverse)",
        "length=num_blocks)",
        [f"{UNROLL}test_reverse_is_a_flip_of_the_arrays"],
        "In reverse, the blocks run in reverse order too.",
    ),
    Fault(
        "fused-reverse-flips-the-padding",
        "artbp/unrolls/fused.py",
        "jnp.where(t < end, end - 1 - t, t)",
        "leaf.shape[0] - 1 - t + 0 * end",
        [f"{FUSED}test_reverse_equals_the_unroll"],
        "Each row is flipped within its length.",
    ),
    Fault(
        "fused-gates-off-by-one",
        "artbp/unrolls/fused.py",
        "            gates=piece.gates,\n",
        "            gates=None if piece.gates is None else jnp.roll(piece.gates, 1, axis=0),\n",
        [f"{FUSED}test_equals_the_unroll[linear-17]"],
        "gate_t acts between the steps t and t + 1.",
    ),
    Fault(
        "fused-ended-rows-send-cotangents",
        "artbp/unrolls/fused.py",
        "cotangents = _tree.select(taken[j], cotangents, _tree.zeros_like(cotangents))",
        "pass",
        [f"{FUSED}test_rows_that_interact"],
        "Where rows interact in the cell, a row that has ended must send nothing to the others.",
    ),
    Fault(
        "fused-initial-carry-without-gradient",
        "artbp/unrolls/fused.py",
        "to_initial = _tree.accumulate(to_initial, fresh)",
        "del fresh",
        [f"{FUSED}test_equals_the_unroll[linear-17]"],
        "The initial carry enters at resets, so it has a gradient.",
    ),
    Fault(
        "fused-gradient-of-padding",
        "artbp/unrolls/fused.py",
        "x_gradient = _within(lengths, piece.t, x_gradient, _tree.zeros_like(x_gradient))",
        "pass",
        [f"{FUSED}test_rows_that_interact"],
        "Inputs beyond a row's length have no gradient.",
    ),
    Fault(
        "scan-without-its-gate",
        "artbp/unrolls/scan.py",
        "        return gate(carry, gate_t), y\n",
        "        return carry, y\n",
        ["tests/unrolls/test_scan.py::test_its_gates_are_those_of_unroll"],
        "Gates of `scan` would have no effect.",
    ),
    # The adapters.
    Fault(
        "layer-resets-to-the-first-carry",
        "artbp/adapters/base.py",
        "    carry = initial_carry if carry is None else carry\n",
        "    carry = initial_carry = initial_carry if carry is None else carry\n",
        ["tests/adapters/test_layers.py::test_gates_and_resets_are_those_of_unroll"],
        "After a reset the cell's initial carry enters, not the carry that entered the first step.",
    ),
    Fault(
        "nnx-statistics-not-updated",
        "artbp/adapters/nnx.py",
        "lax.stop_gradient(nnx.state(own, mutable))",
        "updated",
        [f"{ADAPTERS}test_batch_statistics_go_on_in_the_carry[nnx]"],
        "A step updates the batch statistics in the carry.",
    ),
    Fault(
        "nnx-draws-without-a-key",
        "artbp/adapters/nnx.py",
        "        if not has_key:\n            raise ValueError(NO_KEY)\n",
        "        pass\n",
        [f"{ADAPTERS}test_keys_choose_the_random_numbers[nnx]"],
        "Each step would draw the same dropout mask, from the key that the module held when split.",
    ),
    Fault(
        "nnx-module-shares-the-params",
        "artbp/adapters/nnx.py",
        "return nnx.merge(graphdef, params, updated, rest, copy=True)",
        "return nnx.merge(graphdef, params, updated, rest, recreate_variables=False)",
        [f"{ADAPTERS}test_a_module_comes_back[nnx]"],
        "A change of the module that came back would change the params.",
    ),
    Fault(
        "stack-draws-with-one-key",
        "artbp/adapters/base.py",
        "(x, jax.random.fold_in(key, i))",
        "(x, key)",
        [f"{ADAPTERS}test_a_stack_is_a_chain_of_cells"],
        "All cells of a stack would have the same dropout mask.",
    ),
    Fault(
        "lengths-drawn-ahead-under-vmap",
        "artbp/estimators/base.py",
        "return lax.map(length_of, first + jnp.arange(count, dtype=jnp.int32))",
        "return jax.vmap(length_of)(first + jnp.arange(count, dtype=jnp.int32))",
        [f"{CHUNKS}test_lengths_drawn_ahead_are_those_that_are_run[rbg]"],
        "Under vmap, keys of rbg draw other lengths than the estimate does.",
    ),
    Fault(
        "a-row-without-steps-runs-on-its-padding",
        "artbp/unrolls/arguments.py",
        "return at_first(leaf) if lengths is None else of_real_steps(at_first(leaf), lengths)",
        "return at_first(leaf)",
        [f"{UNROLL}test_harmless_padding_stays_harmless[unroll-False]"],
        "Its first input is padding, and 0 · NaN is NaN.",
    ),
    Fault(
        "fused-gradient-of-the-initial-carry-summed-narrow",
        "artbp/unrolls/fused.py",
        "to_initial = _tree.zero_sums(initial)",
        "to_initial = _tree.zeros_like(initial)",
        [f"{FUSED}test_the_gradient_of_a_narrow_initial_carry_is_summed_in_float32[fused_unroll]"],
        "In bfloat16 a sum of ones stays at 256.",
    ),
    # The recurrences of the cells, written by hand.
    Fault(
        "recurrence-hidden-not-reset",
        "artbp/cells/affine_recurrence.py",
        "return jnp.where(_tree.align(chunk.resets, ys), initial[None], previous)",
        "return previous",
        [f"{REPLAY}[lstm-exact-4]"],
        "The hidden state that entered a step after a reset is the initial one.",
    ),
    Fault(
        "symbols-that-repeat-counted-once",
        "artbp/cells/affine_recurrence.py",
        "from_input = rows.add(of_input.astype(self._wide))",
        "from_input = rows.set(of_input.astype(self._wide))",
        [f"{FUSED}test_more_symbols_than_units[rnn]"],
        "The gradient of a row of the input weights is a sum over the steps that read it.",
    ),
    Fault(
        "lstm-forget-gate-derivative",
        "artbp/cells/lstm_recurrence.py",
        "forget_gate=c * f * (1 - f),",
        "forget_gate=c * f,",
        [f"{FUSED}test_equals_the_unroll[lstm-1]"],
        "The derivative of the logistic function is f·(1 − f).",
    ),
    Fault(
        "lstm-output-gate-in-the-memory",
        "artbp/cells/lstm_recurrence.py",
        "memory=o * (1 - tanh * tanh),",
        "memory=1 - tanh * tanh,",
        [f"{FUSED}test_equals_the_unroll[lstm-1]"],
        "h' = o·tanh(c'), so the output gate enters ∂h'/∂c'.",
    ),
    Fault(
        "gru-candidate-bias-without-gradient",
        "artbp/cells/gru_recurrence.py",
        '"candidate_bias": sums["candidate_bias"] + self._summed(from_hidden),',
        '"candidate_bias": sums["candidate_bias"],',
        [f"{FUSED}test_equals_the_unroll[gru-1]"],
        "The bias inside the reset gate is a parameter too.",
    ),
    Fault(
        "gru-stores-bfloat16-on-a-cpu",
        "artbp/cells/gru_recurrence.py",
        "leaf.astype(self._stored) for leaf in (r, z, n, a)",
        "leaf.astype(self._dtype) for leaf in (r, z, n, a)",
        ["tests/cells/test_cells.py::test_what_a_loop_stores_is_not_bfloat16_on_a_cpu[gru]"],
        "XLA on a CPU widens the whole buffer of residuals at every step.",
    ),
    Fault(
        "gru-update-gate-derivative",
        "artbp/cells/gru_recurrence.py",
        "update=(entered.astype(self._wide) - n) * z * (1 - z),",
        "update=(n - entered.astype(self._wide)) * z * (1 - z),",
        [f"{FUSED}test_equals_the_unroll[gru-1]"],
        "h' = (1 − z) n + z h grows with z where h > n.",
    ),
    Fault(
        "rnn-slope",
        "artbp/cells/vanilla_recurrence.py",
        "return 1 - hidden * hidden",
        "return 1 - hidden",
        [f"{FUSED}test_equals_the_unroll[rnn-1]"],
        "The derivative of tanh is 1 − tanh².",
    ),
    Fault(
        "recurrence-gradient-as-a-plain-dict",
        "artbp/cells/affine_recurrence.py",
        "        return self._to_params(jax.tree_util.tree_map_with_path(of_leaf, self._params))\n",
        "        del of_leaf\n"
        "        return self._to_params(\n"
        "            {n: sums[n].astype(self._params[n].dtype) for n in self._names}\n"
        "        )\n",
        [f"{STREAMING}test_symbols_as_inputs_of_an_lstm_with_params_in_any_mapping[dynamic-4]"],
        "Params may be any mapping, and gradients have their structure.",
    ),
    # The laws.
    Fault(
        "law-drawn-length-one-longer",
        "artbp/truncation/polynomial.py",
        "from_table = 1 + jnp.searchsorted(",
        "from_table = 2 + jnp.searchsorted(",
        [f"{LAWS}test_lengths_follow_the_hazard[polynomial]"],
        "Lengths and hazard must agree, or the compensation belongs to other boundaries.",
    ),
    Fault(
        "law-tail-off-by-one",
        "artbp/truncation/polynomial.py",
        "shift = self._scale + 1 - self.alpha / 2",
        "shift = self._scale + 2 - self.alpha / 2",
        [f"{LAWS}test_the_far_tail_has_the_right_probability"],
        "The closed form behind the table must go on where the table ends.",
    ),
    Fault(
        "law-compensation-off-by-one",
        "artbp/truncation/polynomial.py",
        "return (self._scale + k) / (at_age_1 + (k - 1))",
        "return (self._scale + k + 1) / (at_age_1 + k)",
        [f"{LAWS}test_compensations_undo_the_survival"],
        "Π compensation · S = 1.",
    ),
    Fault(
        "law-compensation-in-float32",
        "artbp/truncation/geometric.py",
        "self.mean_length / (self.mean_length - 1)",
        "1 / (1 - self.hazard(k))",
        [f"{LAWS}test_compensations_of_hazards_close_to_one_in_float32"],
        "In float32, 1 − c is rounded where c is close to 1.",
    ),
    Fault(
        "law-survival-in-float32",
        "artbp/truncation/base.py",
        "np.cumsum(log_steps)",
        "np.cumsum(log_steps.astype(np.float32))",
        [f"{LAWS}test_survival_at_a_large_mean_against_gamma_functions"],
        "At L0 = 5000 float32 is off by per cents.",
    ),
    Fault(
        "law-uniforms-too-coarse",
        "artbp/truncation/base.py",
        "    return jnp.ldexp(significand, -(zeros + 1))\n",
        "    return 1 - jax.random.uniform(rng_key, dtype=jnp.float32)\n",
        [f"{LAWS}test_uniforms_reach_far_below_float32_spacing"],
        "Multiples of 2⁻²³ round away the tail of a law of lengths.",
    ),
    Fault(
        "law-draws-each-number-twice",
        "artbp/truncation/base.py",
        "full_precision_uniform(jax.random.fold_in(rng_key, k))",
        "full_precision_uniform(jax.random.fold_in(rng_key, k // 2))",
        [f"{LAWS}test_lengths_follow_the_hazard[hazard only, tail]"],
        "The default draw needs an independent number at each age.",
    ),
    Fault(
        "law-gates-of-the-next-age",
        "artbp/truncation/base.py",
        "gate = jnp.where(boundary, 0.0, self.compensation(age))",
        "gate = jnp.where(boundary, 0.0, self.compensation(age + 1))",
        [f"{LAWS}test_gates_have_mean_one"],
        "Each gate has the mean 1.",
    ),
    Fault(
        "law-geometric-length-one-shorter",
        "artbp/truncation/geometric.py",
        "return 1 + as_length(jnp.floor(jnp.log(u) / log_survival))",
        "return as_length(jnp.ceil(jnp.log(u) / log_survival) - 1)",
        [f"{LAWS}test_lengths_follow_the_hazard[geometric]"],
        "Lengths begin at 1, and length > k exactly where u ≤ S(k).",
    ),
    Fault(
        "law-table-tail-overflows",
        "artbp/truncation/tabulated.py",
        "in_tail = as_length(jnp.floor(ratio) + np.float32(1 + len(self.hazards)))",
        "in_tail = as_length(jnp.floor(ratio)) + np.int32(1 + len(self.hazards))",
        [f"{LAWS}test_a_tabulated_tail_stays_within_its_integers"],
        "A sum above 2³¹ − 1 is a negative length.",
    ),
    # TBPTT, its windows, and AWD-LSTM.
    Fault(
        "tbptt-offset-drawn-once",
        "artbp/estimators/tbptt.py",
        "jax.random.fold_in(rng_key, n)",
        "rng_key",
        [f"{STREAMING}test_tbptt_draws_its_offset_anew_in_each_pass"],
        "The offset moves the cuts from pass to pass.",
    ),
    Fault(
        "window-one-step-short",
        "artbp/estimators/tbptt_k1_k2.py",
        "start = jnp.maximum(end - k2,",
        "start = jnp.maximum(end - k2 + 1,",
        [f"{K1_K2}test_equals_its_definition[2-5-stored-new]"],
        "The window is the last k2 steps.",
    ),
    Fault(
        "window-carry-of-the-wrong-slot",
        "artbp/estimators/carry_ring.py",
        "floats, rest = _tree.partition(_tree.index(carries, t % size))",
        "floats, rest = _tree.partition(_tree.index(carries, (t + 1) % size))",
        [f"{K1_K2}test_equals_its_definition[2-5-stored-new]"],
        "The carry that entered step t is in slot t mod k2.",
    ),
    Fault(
        "window-weights-of-the-wrong-version",
        "artbp/estimators/tbptt_k1_k2.py",
        "_tree.index(versions, (t // k1) % num_versions)",
        "_tree.index(versions, (t // k1 + 1) % num_versions)",
        [f"{K1_K2}test_equals_its_definition[2-5-past_weights-new]"],
        "Mode past_weights differentiates a step at the params that it ran with.",
    ),
    Fault(
        "window-losses-counted-twice",
        "artbp/estimators/tbptt_k1_k2.py",
        "return jnp.where(t >= first, 1.0, 0.0)",
        "return jnp.asarray(1.0)",
        [f"{K1_K2}test_equals_its_definition[2-5-stored-new]"],
        "Losses of steps before the last update have had their gradient.",
    ),
    Fault(
        "window-loss-sum-of-old-steps",
        "artbp/estimators/carry_ring.py",
        "counts = valid & (t >= new)",
        "counts = valid",
        [f"{REGISTRY}test_exactness_is_what_the_row_claims[tbptt_reforward]"],
        "loss_sum is of the new steps, each loss once.",
    ),
    Fault(
        "window-beyond-the-last-update",
        "artbp/estimators/tbptt_k1_k2.py",
        "first if k2 <= k1 else end - num_steps)",
        "end - num_steps)",
        [f"{K1_K2}test_k1_equal_to_k2_is_tbptt"],
        "At the end of the stream, too, windows that do not overlap begin behind the last update.",
    ),
    Fault(
        "awd-lstm-factor-dropped",
        "artbp/estimators/awd_lstm.py",
        "length.astype(jnp.result_type(float)) / base",
        "jnp.ones_like(length, jnp.result_type(float))",
        [f"{RANDOM}test_awd_lstm_is_the_mean_gradient_of_a_segment"],
        "The learning rate grows with the length of the segment.",
    ),
    Fault(
        "awd-lstm-sum-for-mean",
        "artbp/estimators/awd_lstm.py",
        "return (wide / jnp.maximum(num_losses, 1).astype(wide.dtype)).astype(grad.dtype)",
        "return wide.astype(grad.dtype)",
        [f"{RANDOM}test_awd_lstm_is_the_mean_gradient_of_a_segment"],
        "AWD-LSTM takes the mean loss of a segment.",
    ),
    # Estimators that advance a fixed number of steps.
    Fault(
        "stepwise-same-key-every-estimate",
        "artbp/estimators/stepwise.py",
        "key = jax.random.fold_in(state.rng_key, state.num_estimates)",
        "key = state.rng_key",
        [f"{ONLINE}test_uoro_draws_new_signs_at_each_step_and_estimate"],
        "Draws of different estimates are independent.",
    ),
    Fault(
        "rtrl-without-transport",
        "artbp/estimators/rtrl.py",
        "return jax.tree.map(jnp.add, *influence_terms(influence, derivatives))",
        "return influence_terms(influence, derivatives)[1]",
        [f"{ONLINE}test_rtrl_is_bptt[linear-1]"],
        "Without (∂F/∂s) J nothing older than a step is seen.",
    ),
    Fault(
        "rtrl-forward-mode-without-transport",
        "artbp/estimators/rtrl.py",
        "derivatives.jvp(to_params(direction), tangent)",
        "derivatives.jvp(to_params(direction), _tree.zeros_like(tangent))",
        [f"{ONLINE}test_rtrl_with_fewer_parameters_than_states"],
        "The same in forward mode.",
    ),
    Fault(
        "snap1-without-its-mask",
        "artbp/estimators/snap1.py",
        "pattern = jax.tree.map(jnp.logical_or, influence.pattern, touched)",
        "pattern = jax.tree.map(jnp.ones_like, influence.pattern)",
        [f"{ONLINE}test_snap1_tracks_the_influence_of_a_weight_on_its_own_unit"],
        "SnAp-1 without its mask is RTRL.",
    ),
    Fault(
        "snap1-parts-of-a-number-apart",
        "artbp/estimators/snap1.py",
        "touched = either_part(nonzero(immediate))",
        "touched = nonzero(immediate)",
        [f"{COMPLEX}test_snap1_is_rtrl_for_a_complex_diagonal_recurrence"],
        "A parameter that reaches the real part of a unit must be tracked on both parts.",
    ),
    Fault(
        "complex-leaves-not-split",
        "artbp/estimators/real_parts.py",
        "if jnp.iscomplexobj(x) else x",
        "if False else x",
        [f"{COMPLEX}test_exact_rows[rtrl]"],
        "A function that is not holomorphic has a derivative in the imaginary direction as well.",
    ),
    Fault(
        "complex-gradient-without-imaginary-part",
        "artbp/estimators/real_parts.py",
        "lambda real, imag: lax.complex(real, -imag)",
        "lambda real, imag: lax.complex(real, 0 * imag)",
        [f"{COMPLEX}test_exact_rows[rtrl]"],
        "The gradient by a complex parameter has an imaginary part.",
    ),
    Fault(
        "complex-gradient-conjugated",
        "artbp/estimators/real_parts.py",
        "lambda real, imag: lax.complex(real, -imag)",
        "lambda real, imag: lax.complex(real, imag)",
        [f"{COMPLEX}test_exact_rows[rtrl]"],
        "It is ∂L/∂x − i ∂L/∂y, as jax.grad gives it.",
    ),
    Fault(
        "uoro-refuses-a-custom-vjp-late",
        "artbp/estimators/differentiation.py",
        "        jax.eval_shape(batch, tangents)\n",
        "",
        [f"{ONLINE}test_cells_that_cannot_be_differentiated[uoro-forward]"],
        "Without this check, JAX refuses the cell when it compiles, and the error names no remedy.",
    ),
    Fault(
        "online-differentiates-the-loss-forward",
        "artbp/estimators/online.py",
        "carry, _ = steps.run(params, _tree.combine(floats, rest), t)\n",
        "carry, y = steps.run(params, _tree.combine(floats, rest), t)\n"
        "                steps.loss(params, y, t)\n",
        [f"{ONLINE}test_a_loss_needs_reverse_mode_only"],
        "A loss with a custom_vjp is fine: only the carry is differentiated in forward mode.",
    ),
    Fault(
        "rtrl-merges-explicit-axes",
        "artbp/estimators/rtrl.py",
        "if not _tree.is_sharded(tree):",
        "if tree is not None:",
        [f"{ONLINE}test_rows_split_over_an_explicit_mesh"],
        "The influence matrix is whole on every device.",
    ),
    Fault(
        "adaptive-nan-before-a-measurement",
        "artbp/estimators/adaptive.py",
        "decay_rate=number + jnp.inf,",
        "decay_rate=number + jnp.nan,",
        [f"{ADAPTIVE}test_it_runs_under_debug_nans"],
        "jax_debug_nans stops at any NaN.",
    ),
    Fault(
        "uoro-signs-reused",
        "artbp/estimators/online.py",
        "key = jax.random.fold_in(rng_key, t - first)",
        "key = rng_key",
        [f"{ONLINE}test_uoro_draws_new_signs_at_each_step_and_estimate"],
        "The products of signs of different steps vanish only where these are independent.",
    ),
    Fault(
        "uoro-unbalanced",
        "artbp/estimators/uoro.py",
        "lambda x, g: x / rho_0 + g / rho_1,",
        "lambda x, g: x / rho_0 + g / rho_0,",
        [f"{ONLINE}test_uoro_is_unbiased_over_all_signs"],
        "ρ1 must cancel in the product of the two factors.",
    ),
    Fault(
        "pes-without-accumulation",
        "artbp/estimators/perturbed.py",
        "accumulated = jax.tree.map(jnp.add, particles.accumulated, drawn)",
        "accumulated = drawn",
        [f"{PERTURBED}test_pes_is_unbiased_on_a_quadratic"],
        "Credit for the last perturbation alone is truncated ES.",
    ),
    Fault(
        "nres-draws-at-every-unroll",
        "artbp/estimators/perturbed.py",
        "is_due, age = particles.age == 0, particles.age + 1",
        "is_due, age = particles.age >= 0, particles.age + 1",
        [f"{PERTURBED}test_the_mean_over_all_signs_is_bptt_on_a_quadratic"],
        "A perturbation lasts as long as its credit is not summed with that of another.",
    ),
    Fault(
        "nres-counts-a-perturbation-twice",
        "artbp/estimators/perturbed.py",
        "accumulated=_tree.select(is_due, accumulated, particles.accumulated)",
        "accumulated=accumulated",
        [f"{PERTURBED}test_the_mean_over_all_signs_is_bptt_on_a_quadratic"],
        "ξ sums the perturbations that were drawn, each once.",
    ),
    Fault(
        "forward-gradient-draws-at-every-step",
        "artbp/estimators/forward_gradient.py",
        "(is_new, directions.params),",
        "(jnp.ones((), bool), directions.params),",
        [f"{FORWARD}test_directions_are_drawn_once_a_pass_without_resets"],
        "The carry's derivative along one direction is multiplied with another.",
    ),
    Fault(
        "forward-gradient-keeps-its-direction-at-a-reset",
        "artbp/estimators/forward_gradient.py",
        "is_new = ~directions.are_drawn | derivatives.all_replaced",
        "is_new = ~directions.are_drawn",
        [f"{FORWARD}test_directions_are_drawn_where_a_sequence_begins"],
        "A long stream of sequences is trained along one direction.",
    ),
    Fault(
        "forward-gradient-draws-at-every-step-under-vmap",
        "artbp/estimators/forward_gradient.py",
        "_, params = jax.lax.while_loop(\n            lambda loop: loop[0],\n"
        "            lambda loop: (jnp.zeros_like(loop[0]), draw(loop[1])),\n"
        "            (is_new, directions.params),\n        )",
        "params = jax.lax.cond(is_new, draw, lambda like: like, directions.params)",
        [f"{FORWARD}test_streams_side_by_side_draw_where_one_of_them_begins"],
        "Runs side by side spend their time on random numbers that nobody uses.",
    ),
    Fault(
        "a-reset-of-any-row-counts-for-all",
        "artbp/estimators/stepwise.py",
        "of_device = jnp.all(resets.reshape(count, -1), axis=1)",
        "of_device = jnp.any(resets.reshape(count, -1), axis=1)",
        [
            f"{FORWARD}test_directions_are_drawn_where_a_sequence_begins",
            f"{PERTURBED}test_perturbations_begin_again_at_a_reset",
        ],
        "Rows that go on lose the credit for earlier perturbations.",
    ),
    Fault(
        "a-reset-on-one-device-counts-for-all",
        "artbp/estimators/stepwise.py",
        "lax.pmin(of_device.astype(jnp.int32), self.axes)",
        "lax.pmax(of_device.astype(jnp.int32), self.axes)",
        ["tests/test_data_parallel.py::test_what_is_split_and_what_is_refused"],
        "The rows of other devices go on.",
    ),
    Fault(
        "lasting-leaves-are-forgotten",
        "artbp/estimators/stepwise.py",
        "any(map(matters, _tree.kept(self.initial_carry, carry)))",
        "False",
        [
            f"{FORWARD}test_a_number_that_lasts_keeps_the_direction",
            f"{PERTURBED}test_a_leaf_that_lasts_keeps_the_perturbations_unless_it_is_a_key",
        ],
        "What a reset leaves as it is still depends on earlier perturbations.",
    ),
    Fault(
        "pes-remembers-across-sequences",
        "artbp/estimators/perturbed.py",
        "_tree.select(is_reset, nothing, (",
        "_tree.select(jnp.zeros((), bool), nothing, (",
        [
            f"{PERTURBED}test_the_mean_is_bptt_with_resets",
            f"{PERTURBED}test_perturbations_begin_again_at_a_reset",
        ],
        "What is accumulated grows without end, though it has no effect any more.",
    ),
    Fault(
        "critic-is-not-subtracted",
        "artbp/unrolls/look_back.py",
        "jax.tree.map(jnp.subtract, state.flow, stored.predicted)",
        "state.flow",
        [f"{CRITIC}test_it_is_unbiased_whatever_the_critic_predicts[rnn-stored]"],
        "What was predicted would be backpropagated twice.",
    ),
    Fault(
        "critic-predicts-beyond-the-end",
        "artbp/unrolls/look_back.py",
        "predicted = _tree.select(is_over, _tree.zeros_like(predicted), predicted)",
        "del is_over",
        [f"{CRITIC}test_it_is_unbiased_whatever_the_critic_predicts[rnn-stored]"],
        "Behind the last step there is no later window that takes the prediction back.",
    ),
    Fault(
        "critic-subtracts-a-new-prediction",
        "artbp/estimators/unbiased_tbptt.py",
        "stored = stored._replace(predicted=critique.predicted)",
        "stored = stored._replace(predicted=critique.target)",
        [f"{CRITIC}test_it_is_unbiased_whatever_the_critic_predicts[rnn-stored]"],
        "The errors telescope only if each prediction that was used is subtracted.",
    ),
    Fault(
        "critic-takes-the-arrays-for-the-sequence",
        "artbp/unrolls/look_back.py",
        "is_over = position + num_steps == stream.history + stream.num_new",
        "is_over = position + num_steps == stream.num_steps",
        [f"{CRITIC}test_a_stream_that_stops_before_its_arrays_do"],
        "The arrays of a stream may be longer than its sequence.",
    ),
    Fault(
        "diagonal-rtrl-cuts-lasting-leaves",
        "artbp/estimators/stepwise.py",
        "t, jax.tree.map(lambda leaf: jnp.ones(leaf.shape[:1], bool), self.initial_carry), by_row",
        "t, jax.tree.map(lambda leaf: jnp.ones(leaf.shape[:1], bool), carry), by_row",
        ["tests/estimators/test_diagonal_rtrl.py::test_resets"],
        "The gradient by a leaf that a reset leaves alone crosses the reset.",
    ),
    Fault(
        "associative-unroll-carries-nan-over-a-reset",
        "artbp/cells/associative.py",
        "carried = jnp.where(next_factor == 0, 0, next_factor * drive)",
        "carried = next_factor * drive",
        ["tests/cells/test_associative.py::test_a_reset_ends_what_is_not_finite"],
        "0 times NaN is NaN.",
    ),
    Fault(
        "associative-gate-on-the-forward-pass",
        "artbp/cells/associative.py",
        "        after = gates * after\n",
        "        after = after\n",
        ["tests/cells/test_associative.py::test_it_is_the_sequential_unroll"],
        "A gate is a factor of the backward scan.",
    ),
    Fault(
        "es-twice-the-gradient",
        "artbp/estimators/perturbed.py",
        "weights = (positive - negative) / (2 * num_pairs * scale**2)",
        "weights = (positive - negative) / (num_pairs * scale**2)",
        [f"{PERTURBED}test_truncated_es_has_the_mean_of_tbptt"],
        "A pair has two members.",
    ),
    Fault(
        "adaptive-fit-from-the-wrong-lag",
        "artbp/estimators/adaptive.py",
        "tail = lag_norms[fitted_from - 1 :]",
        "tail = lag_norms[fitted_from - 2 :]",
        [f"{ADAPTIVE}test_the_decay_rate_of_a_geometric_sequence"],
        "Only lags from τ on decay geometrically.",
    ),
    Fault(
        "adaptive-bound-from-the-wrong-lag",
        "artbp/estimators/adaptive.py",
        "tail = lag_norms[fitted_from - 1] * rate**beyond / (1 - rate)",
        "tail = lag_norms[fitted_from] * rate**beyond / (1 - rate)",
        [f"{ADAPTIVE}test_the_bound_is_the_sum_of_what_is_cut_off"],
        "The geometric tail goes on from γ_τ.",
    ),
    Fault(
        "adaptive-fits-zeros",
        "artbp/estimators/adaptive.py",
        "used = (tail > 0).astype(tail.dtype)",
        "used = jnp.ones_like(tail)",
        [f"{ADAPTIVE}test_the_decay_rate_of_a_geometric_sequence"],
        "A lag that nothing comes from has no logarithm.",
    ),
    Fault(
        "adaptive-remembers-infinity",
        "artbp/estimators/adaptive.py",
        "return _tree.select(jnp.isfinite(optax.tree.norm(grads)), added, state)",
        "return added",
        [f"{ADAPTIVE}test_what_is_not_finite_enters_no_running_mean"],
        "A gradient that is not finite would never leave the running mean.",
    ),
    Fault(
        "adaptive-measures-infinity",
        "artbp/estimators/adaptive.py",
        "return _tree.select(jnp.isfinite(jnp.sum(norms)), new, state)",
        "return new",
        [f"{ADAPTIVE}test_what_is_not_finite_enters_no_running_mean"],
        "A norm that is not finite would never leave the running mean.",
    ),
    Fault(
        "es-rounds-narrow-params",
        "artbp/estimators/perturbed.py",
        "or leaf.dtype.itemsize < 4:",
        "or leaf.dtype.itemsize < 2:",
        [f"{PERTURBED}test_params_that_cannot_be_perturbed"],
        "θ ± ε would be rounded to bfloat16, so it is refused.",
    ),
    Fault(
        "run-pass-keeps-the-last-gradient",
        "artbp/estimators/run_pass.py",
        "return _tree.accumulate(total, grads)",
        "return jax.tree.map(lambda a, b: b.astype(a.dtype), total, grads)",
        [f"{RUN_PASS}test_the_sum_of_the_gradients_of_a_pass[False]"],
        "The gradient of a sequence is the sum over its segments.",
    ),
    Fault(
        "run-pass-sums-in-bfloat16",
        "artbp/estimators/run_pass.py",
        "_tree.zero_sums(_tree.as_arrays(params))",
        "_tree.zeros_like(_tree.as_arrays(params))",
        [f"{RUN_PASS}test_sums_are_float32_or_wider"],
        "A sum of bfloat16 gradients stops to grow.",
    ),
    # artbp.contrib.
    Fault(
        "anchors-reach-one-step-too-far",
        "artbp/contrib/auxiliary_loss.py",
        "return jnp.maximum(anchor - (truncation_length - 1), 0)",
        "return jnp.maximum(anchor - truncation_length, 0)",
        [f"{AUXILIARY}test_every_estimator_gets_the_gradient_of_the_loop[unbiased_tbptt]"],
        "The carry at an anchor is that of its own steps.",
    ),
    Fault(
        "anchors-are-the-same-in-every-pass",
        "artbp/contrib/auxiliary_loss.py",
        "jax.random.fold_in(jax.random.fold_in(state.rng_key, _DOMAIN), before)",
        "jax.random.fold_in(jax.random.fold_in(state.rng_key, _DOMAIN), 0 * before)",
        [f"{AUXILIARY}test_every_estimator_gets_the_gradient_of_the_loop[unbiased_tbptt]"],
        "Each pass draws new anchors.",
    ),
    Fault(
        "anchors-are-reached-from-a-carry-that-is-too-late",
        "artbp/contrib/auxiliary_loss.py",
        "is_nearer = (begin == 0) | (first_step(anchor) >= begin)",
        "is_nearer = (begin == 0) | (anchor >= begin)",
        [f"{AUXILIARY}test_every_estimator_gets_the_gradient_of_the_loop[unbiased_tbptt]"],
        "The gradient of an anchor goes back over the edges of the estimator.",
    ),
    Fault(
        "auxiliary-losses-across-a-reset",
        "artbp/contrib/auxiliary_loss.py",
        "is_inside &= ~jnp.any(resets, axis=0)",
        "is_inside &= ~jnp.all(resets, axis=0)",
        [f"{AUXILIARY}test_every_estimator_gets_the_gradient_of_the_loop[unbiased_tbptt]"],
        "A window that belongs to another sequence has no loss.",
    ),
    Fault(
        "runs-compensation-of-the-wrong-run",
        "artbp/contrib/block_schedule.py",
        "jnp.asarray(block.functions.compensation(ages), info.max_weight.dtype)",
        "jnp.asarray(block.functions.compensation(ages[:, ::-1]), info.max_weight.dtype)",
        [f"{RUNS}test_rows_equal_the_loop[rnn-3]"],
        "Each run has an age of its own.",
    ),
    Fault(
        "runs-reload-of-the-wrong-slot",
        "artbp/contrib/block_schedule.py",
        "goal_slot = (slot - segment.num_iterations + segment.goal) % num_slots",
        "goal_slot = (slot - segment.num_iterations + segment.goal + 1) % num_slots",
        [f"{RUNS}test_rows_equal_the_loop[rnn-3]"],
        "The carry that entered the goal is in the slot of the iteration that ran it.",
    ),
    Fault(
        "runs-plan-off-by-one",
        "artbp/contrib/independent_runs.py",
        "length = lengths.at[state.num_estimates - first, runs]",
        "length = lengths.at[state.num_estimates + 1 - first, runs]",
        [f"{RUNS}test_rows_equal_the_loop[rnn-3]"],
        "The runs take the boundaries that `artbp.artbp` draws with their keys.",
    ),
    Fault(
        "runs-go-beyond-the-stop",
        "artbp/contrib/independent_runs.py",
        "num_steps = jnp.asarray(stream.num_new, jnp.int32)",
        "num_steps = jnp.asarray(stream.num_steps, jnp.int32)",
        [f"{RUNS}test_steps_behind_the_stop_are_not_run"],
        "What follows the stop is padding.",
    ),
    Fault(
        "runs-draw-lengths-under-vmap",
        "artbp/contrib/independent_runs.py",
        "if draws_alike_under_vmap(keys):",
        "if True:",
        [f"{RUNS}test_lengths_do_not_depend_on_the_other_rows[rbg]"],
        "Under vmap, rbg keys draw other lengths, which depend on the first run.",
    ),
    Fault(
        "draws-of-gamma-unseen",
        "artbp/_draws.py",
        "random_(bits|gamma)",
        "random_(bits)",
        [f"{STREAMING}test_the_way_back_sees_the_noise_of_the_forward_pass[unsafe_rbg-draw_gamma]"],
        "The gamma distribution is a primitive of its own.",
    ),
    Fault(
        "one-pattern-replayed",
        "artbp/diagnostics/expectation.py",
        "make_estimator(law if len(lengths) == 1 else replay(row, law))",
        "make_estimator(replay(row, law))",
        [f"{DIAGNOSTICS}test_expectation.py::test_an_estimator_with_other_segments_is_refused"],
        "An estimator with other segments takes the law itself.",
    ),
    Fault(
        "coupling-without-the-initial-carry",
        "artbp/contrib/multi_draw.py",
        "def gradients_of(gates: jax.Array) -> Any:\n"
        '        options = {"initial_carry": initial_carry}',
        "def gradients_of(gates: jax.Array) -> Any:\n        options = {}",
        [f"{DIAGNOSTICS}test_initial_carry_of_measures.py::test_variances_and_profiles"],
        "After a reset, the carry is the one that was given.",
    ),
    Fault(
        "lags-draw-noise-under-vmap",
        "artbp/diagnostics/lag_gradients.py",
        "map_lags = partial(lax.map, tangents_at) if one_by_one else jax.vmap(tangents_at)",
        "map_lags = jax.vmap(tangents_at)",
        [f"{DIAGNOSTICS}test_variance.py::test_a_cell_with_noise[rbg]"],
        "Under vmap, rbg keys draw other noise than the forward pass did.",
    ),
    Fault(
        "no-symbol-is-the-last-one",
        "artbp/cells/base.py",
        "return jnp.where((x >= 0) & (x < count), x, count)",
        "return x % count",
        ["tests/cells/test_cells.py::test_integer_inputs_are_one_hot_vectors[lstm]"],
        "Integers outside the symbols pick no row, as `jax.nn.one_hot` has it.",
    ),
    Fault(
        "no-symbol-has-a-gradient",
        "artbp/cells/affine_recurrence.py",
        'rows = sums["input"].at[as_symbols(xs, num_inputs)]',
        'rows = sums["input"].at[xs]',
        [
            f"{STREAMING}test_symbols_as_inputs_of_an_lstm_with_params_in_any_mapping[dynamic-12]",
        ],
        "A row that was not picked has no gradient.",
    ),
    Fault(
        "expectation-over-other-segments",
        "artbp/diagnostics/expectation.py",
        "if len(lengths) > 1 and not follows.all():",
        "if False:",
        [f"{DIAGNOSTICS}test_expectation.py::test_an_estimator_with_other_segments_is_refused"],
        "The probabilities are those of the boundaries of the law.",
    ),
    Fault(
        "clipping-without-the-initial-carry",
        "artbp/contrib/clipping.py",
        "estimator.init(params, carry, rng_key=rng_key, initial_carry=initial_carry)",
        "estimator.init(params, carry, rng_key=rng_key)",
        [f"{DIAGNOSTICS}test_initial_carry_of_measures.py::test_gradients"],
        "After a reset, the carry is the one that was given.",
    ),
    Fault(
        "runs-update-all-of-them",
        "artbp/contrib/independent_runs.py",
        "return _tree.select(finished, jax.vmap(update)(params, aux, grads, info), (params, aux))",
        "return jax.vmap(update)(params, aux, grads, info)",
        [f"{RUNS}test_rows_equal_the_loop[rnn-3]"],
        "Only runs whose segment has ended have a gradient.",
    ),
    Fault(
        "couplings-strata-in-order",
        "artbp/contrib/couplings.py",
        "jax.random.permutation(order_key, num_rows)",
        "jnp.arange(num_rows)",
        [f"{COUPLINGS}test_boundaries_have_the_joint_law[stratified]"],
        "A row that always has the short segments is biased.",
    ),
    Fault(
        "couplings-coarse-reflection",
        "artbp/contrib/couplings.py",
        "pair = jnp.stack([u / 2, 1 - u / 2])",
        "pair = jnp.stack([u, 1 - u])",
        [f"{COUPLINGS}test_antithetic_uniforms_keep_their_tail"],
        "1 − u is too coarse for the tail where u is near 1.",
    ),
    Fault(
        "draws-summed",
        "artbp/contrib/multi_draw.py",
        "return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)",
        "return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), gradients)",
        ["tests/contrib/test_multi_draw.py::test_the_mean_of_draws_is_that_of_their_gates"],
        "The mean of draws is unbiased, not their sum.",
    ),
    Fault(
        "target-propagation-without-multipliers",
        "artbp/contrib/target_propagation.py",
        "shifted = jax.tree.map(jnp.add, gaps, multipliers)",
        "shifted = gaps",
        [f"{TARGETS}test_with_multipliers_the_gradient_is_that_of_bptt_at_any_penalty"],
        "A penalty alone leaves a bias of the order of 1/λ.",
    ),
    Fault(
        "target-propagation-through-resets",
        "artbp/contrib/target_propagation.py",
        "~flags & _tree.align(exists, flags)",
        "_tree.align(exists, flags) | flags",
        [f"{TARGETS}test_a_loop_over_segments"],
        "A target that a reset replaces ties nothing together.",
    ),
    Fault(
        "sampled-bias-deviation",
        "artbp/contrib/sampled_bias.py",
        "deviation = float(np.sqrt(variance)) / norm2",
        "deviation = float(np.sqrt(variance) / np.sqrt(norm2))",
        ["tests/contrib/test_sampled_bias.py::test_the_deviation_is_that_of_the_exact_covariance"],
        "The half-width of the interval comes from it.",
    ),
    Fault(
        "clipping-changes-nothing",
        "artbp/contrib/clipping.py",
        "[_add(one, gradient, clip(gradient), info.length) for one, clip in pairs]",
        "[_add(one, gradient, gradient, info.length) for one, _ in pairs]",
        ["tests/contrib/test_clipping.py::test_the_report_is_that_of_a_plain_loop"],
        "The report compares the clipped gradients with the whole ones.",
    ),
    Fault(
        "optimal-law-from-a-heavy-tail",
        "artbp/contrib/optimal_law.py",
        "        active = 2 if alpha > 4 else 1\n        alpha = max(alpha, 4.0)\n",
        "",
        ["tests/contrib/test_optimal_law.py::test_the_second_moment_is_an_upper_bound"],
        "From a second moment far off, the search ends in a bad local minimum.",
    ),
    # artbp.diagnostics and the variance of a law.
    Fault(
        "variance-of-the-wrong-survival",
        "artbp/diagnostics/renewal.py",
        "return survival[:-1], root_weight, np.sqrt(begins)",
        "return survival[1:], root_weight, np.sqrt(begins)",
        [f"{DIAGNOSTICS}test_variance.py::test_the_formula_equals_enumeration[linear]"],
        "p_u(k) holds S(k − 1), not S(k).",
    ),
    Fault(
        "variance-sampled-without-its-factor",
        "artbp/diagnostics/variance.py",
        "found[i] = num_lags * np.sum(",
        "found[i] = np.sum(",
        [f"{DIAGNOSTICS}test_variance.py::test_the_sampled_trace_covers_the_exact_one[shared]"],
        "One of T − 1 steps is sampled.",
    ),
    Fault(
        "products-of-real-parts-alone",
        "artbp/diagnostics/lag_gradients.py",
        "product -= a.imag.astype(dtype) * b.imag.astype(dtype)",
        "pass",
        [
            f"{DIAGNOSTICS}test_complex_gradients.py::test_the_covariance_has_two_rows_for_each_complex_number"
        ],
        "A cotangent times a tangent is Re(a · b).",
    ),
    Fault(
        "direction-not-conjugated",
        "artbp/diagnostics/variance.py",
        "direction = jax.tree.map(jnp.conj, direction)",
        "direction = jax.tree.map(jnp.asarray, direction)",
        [
            f"{DIAGNOSTICS}test_complex_gradients.py::test_the_covariance_has_two_rows_for_each_complex_number"
        ],
        "The inner product conjugates the gradient; a derivative along z does not.",
    ),
    Fault(
        "streaming-variance-without-survivors",
        "artbp/truncation/streaming.py",
        "return np.exp(log_survival[:-1]) * hazard / (1 - hazard) * norms",
        "return np.exp(log_survival[:-1]) * hazard * norms",
        ["tests/contrib/test_optimal_law.py::test_one_lag_by_hand"],
        "The variance of a gate is c/(1 − c).",
    ),
    Fault(
        "expectation-not-normalised",
        "artbp/diagnostics/expectation.py",
        "probabilities *= np.where(boundary, hazard, 1 - hazard)",
        "probabilities *= np.where(boundary, hazard, 1.0)",
        [f"{DIAGNOSTICS}test_expectation.py::test_mean_and_covariance_against_the_gated_unroll"],
        "The probabilities of all patterns sum to 1.",
    ),
    Fault(
        "bias-without-cross-products",
        "artbp/diagnostics/report_statistics.py",
        "        pairs *= 1 - np.eye(len(self.counts))\n",
        "",
        [f"{DIAGNOSTICS}test_gradient_report.py::test_equals_a_loop_over_windows"],
        "The square of a noisy mean is too large; products of different groups are unbiased.",
    ),
    Fault(
        "jackknife-factor",
        "artbp/diagnostics/interval.py",
        "return np.sqrt((len(left_out) - 1) * np.var(left_out, axis=0))",
        "return np.sqrt(np.var(left_out, axis=0))",
        [f"{DIAGNOSTICS}test_gradient_report.py::test_equals_a_loop_over_windows"],
        "Means that share all groups but one differ little: the jackknife scales up.",
    ),
    Fault(
        "interval-of-no-noise",
        "artbp/diagnostics/report_statistics.py",
        "        if not np.any(values):",
        "        if False:",
        [f"{DIAGNOSTICS}test_gradient_report.py::test_no_bias_without_memory"],
        "A noise that is exactly zero limits nothing.",
    ),
    Fault(
        "bias-seen-by-its-norm-alone",
        "artbp/diagnostics/report.py",
        "return self.interval[0] > 0 or abs(self.projection) > self.projection_half_width",
        "return self.interval[0] > 0",
        [f"{DIAGNOSTICS}test_figure.py::test_what_dominates"],
        "A small bias is seen by its projection first.",
    ),
    Fault(
        "noise-interval-without-the-gradient",
        "artbp/diagnostics/report_statistics.py",
        "low, high = np.sqrt(jackknife.ratio_interval(mean / norm2, half_width / mean))",
        "low, high = np.sqrt((mean + np.array([-half_width, half_width])) / norm2[-1])",
        [
            f"{DIAGNOSTICS}test_gradient_report.py::"
            "test_the_intervals_of_the_noise_include_the_error_of_the_gradient"
        ],
        "The gradient that noise is relative to is measured, with an error.",
    ),
    Fault(
        "look-back-noise-of-one-step-more",
        "artbp/diagnostics/look_back_profile.py",
        "return norms[np.arange(end - 1, -1, -truncation_length)]",
        "return norms[np.arange(end - 1, 0, -truncation_length) - 1]",
        [
            f"{DIAGNOSTICS}test_gradient_report.py::test_the_noise_of_look_backs_is_that_of_all_look_backs"
        ],
        "A window ends with its last step.",
    ),
    Fault(
        "look-back-noise-of-all-losses",
        "artbp/diagnostics/lag_gradients.py",
        "return (t >= first).astype(jnp.result_type(float))",
        "return (t >= 0 * first).astype(jnp.result_type(float))",
        [f"{LAW_OF_LOOK_BACKS}test_the_variance_is_that_of_all_look_backs[linear]"],
        "Only the losses of the newest window are backpropagated.",
    ),
    Fault(
        "blind-report-says-no-bias",
        "artbp/diagnostics/gradient_report.py",
        "is_blind=bool(has_memory and not enters)",
        "is_blind=bool(not has_memory and not enters)",
        [f"{DIAGNOSTICS}test_gradient_report.py::test_a_readout_of_zeros_shows_nothing"],
        "Where no gradient enters the carry, a bias cannot be seen.",
    ),
    Fault(
        "cell-without-memory-is-blind",
        "artbp/diagnostics/gradient_report.py",
        "is_blind=bool(has_memory and not enters)",
        "is_blind=bool(not enters)",
        [f"{DIAGNOSTICS}test_gradient_report.py::test_no_bias_without_memory"],
        "Where the carry has no effect on later carries, truncation has no bias.",
    ),
    Fault(
        "bias-of-nan-is-no-bias",
        "artbp/diagnostics/report.py",
        "biases=[bias for bias in report.biases if not math.isnan(bias.relative_bias)],",
        "biases=list(report.biases),",
        [f"{DIAGNOSTICS}test_gradient_report.py::test_a_bias_of_nan_is_no_bias_of_zero"],
        "NaN is not 0.",
    ),
    Fault(
        "report-of-nan",
        "artbp/diagnostics/report_statistics.py",
        "    if not np.isfinite(norm2[-1]):",
        "    if np.isinf(norm2[-1]):",
        [f"{DIAGNOSTICS}test_gradient_report.py::test_a_gradient_of_nan_shows_nothing"],
        "A gradient of NaN measures nothing.",
    ),
    Fault(
        "report-of-the-history",
        "artbp/stream.py",
        "steps = slice(stream.history + first, stream.history + first + count)",
        "steps = slice(first, first + count)",
        [f"{DIAGNOSTICS}test_gradient_report.py::test_only_the_steps_to_run_are_measured"],
        "The steps of the history have been run.",
    ),
    Fault(
        "recommends-the-dearest-law",
        "artbp/diagnostics/report.py",
        "best = min(cheap, key=lambda row: (row.extra_work, row.variance_to_data))",
        "best = min(cheap, key=lambda row: row.variance_to_data)",
        [f"{DIAGNOSTICS}test_figure.py::test_the_recommendation_follows_from_the_rows"],
        "Where the added variance is small, work decides.",
    ),
    Fault(
        "lag-profile-one-lag-late",
        "artbp/diagnostics/lag_profile.py",
        "norms = jnp.mean(_row_norms(cotangent, window.num_rows)), optax.tree.norm(grads)",
        "norms = jnp.mean(_row_norms(entering, window.num_rows)), optax.tree.norm(grads)",
        [f"{DIAGNOSTICS}test_lag_profile.py::test_the_closed_forms_of_a_linear_system"],
        "Lag 1 is the carry that enters the step whose loss it is.",
    ),
    Fault(
        "lag-profile-of-the-wrong-step",
        "artbp/diagnostics/lag_profile.py",
        "    lags = jnp.arange(1, num_lags + 1, dtype=jnp.int32)\n",
        "    lags = jnp.arange(num_lags, dtype=jnp.int32)\n",
        [f"{DIAGNOSTICS}test_lag_profile.py::test_rates_that_change_from_step_to_step"],
        "The step before the one whose loss it is comes first.",
    ),
    Fault(
        "shadow-begins-at-the-history",
        "artbp/diagnostics/shadow.py",
        "first = position + np.int32(stream.history)",
        "first = position",
        [f"{DIAGNOSTICS}test_shadow.py::test_a_stream_from_a_loader_gives_the_same_window"],
        "The position counts from the end of the history.",
    ),
    Fault(
        "shadow-counts-padding",
        "artbp/diagnostics/shadow.py",
        "end = jnp.asarray(stream.history + stream.num_new, jnp.int32)",
        "end = jnp.asarray(stream.num_steps, jnp.int32)",
        [f"{DIAGNOSTICS}test_shadow.py::test_a_stream_from_a_loader_gives_the_same_window"],
        "Beyond `stop` there is padding.",
    ),
    Fault(
        "shadow-counts-steps-beyond-the-end",
        "artbp/diagnostics/shadow.py",
        "mask = exists if mask is None else masked(mask, exists)",
        "mask = exists if mask is None else mask",
        [f"{DIAGNOSTICS}test_shadow.py::test_equals_plain_gradients[55]"],
        "The window may reach beyond the stream; those steps have no loss.",
    ),
    # Look-backs over windows, and sequences in chunks.
    Fault(
        "uoro-signs-of-the-stream",
        "artbp/estimators/online.py",
        "key = jax.random.fold_in(rng_key, t - first)",
        "key = jax.random.fold_in(rng_key, t)",
        [f"{CHUNKS}test_the_same_numbers_as_from_one_array[uoro]"],
        "A step has another place in a chunk than in the whole sequence.",
    ),
    Fault(
        "segment-that-is-cut-at-the-limit",
        "artbp/stream_chunks.py",
        "        if goes_on and last >= limit:",
        "        if False:",
        [f"{CHUNKS}test_segments_that_never_end"],
        "What follows would be another segment, which the law did not draw.",
    ),
    Fault(
        "narrow-gradient-sums",
        "artbp/unrolls/unroll.py",
        "narrow_params, params = params, _tree.widened(params)",
        "narrow_params = params",
        ["tests/test_odd_inputs.py::test_unroll_sums_the_gradient_of_bfloat16_params_in_float32"],
        "A sum of thousands of steps in bfloat16 stops growing.",
    ),
    Fault(
        "any-number-of-losses",
        "artbp/unrolls/first_step.py",
        "    y_has_rows = not rows_of_y or num_rows in rows_of_y\n",
        "    y_has_rows = True\n",
        [f"{FIRST_STEP}test_arrays_that_do_not"],
        "Losses of another number of rows would be summed without a word.",
    ),
    Fault(
        "any-axis-is-one-of-rows",
        "artbp/unrolls/first_step.py",
        "    return with_twice(-1) == (2 * num_rows,) and with_twice(0) is None\n",
        "    return with_twice(-1) == (2 * num_rows,)\n",
        [f"{FIRST_STEP}test_arrays_that_do_not"],
        "A mean over the rows of an elementwise cell would pass for one over features.",
    ),
    Fault(
        "rows-on-the-last-axis-are-refused",
        "artbp/unrolls/first_step.py",
        "    return with_twice(-1) == (2 * num_rows,) and with_twice(0) is None\n",
        "    return False\n",
        [f"{FIRST_STEP}test_arrays_that_fit"],
        "A cell whose arrays are [H, B] is as good as another.",
    ),
    Fault(
        "an-array-of-one-row-is-refused",
        "artbp/unrolls/first_step.py",
        "num_rows in _rows(tree) or not wrong",
        "not wrong",
        [f"{FIRST_STEP}test_arrays_that_fit"],
        "An array that the rows share is fine beside one that has rows.",
    ),
    Fault(
        "inputs-are-broadcast-over-the-rows",
        "artbp/unrolls/first_step.py",
        '        _check_broadcast("xs", x, num_rows, _rows(x))\n',
        "        pass\n",
        [f"{FIRST_STEP}test_arrays_that_do_not"],
        "A carry of eight rows and inputs of one would be eight times the same row.",
    ),
    Fault(
        "losses-of-any-dtype",
        "artbp/unrolls/readout.py",
        "    if not jnp.issubdtype(losses.dtype, jnp.floating):\n",
        "    if False:\n",
        ["tests/test_odd_inputs.py::test_every_odd_input_and_the_page"],
        "Flags would be summed without a word.",
    ),
    Fault(
        "params-checked-after-their-sensitivity",
        "artbp/estimators/stepwise.py",
        "        check_params(params)\n        inner_state",
        "        inner_state",
        ["tests/estimators/test_bad_input.py::test_init_refuses_integer_params_first"],
        "Whoever passes integers should read why there is no gradient.",
    ),
    Fault(
        "work-without-the-tail",
        "artbp/truncation/look_back.py",
        "    return sum_of_survival(law, hazard, log_survival) - 1",
        "    return float(np.exp(log_survival[1:]).sum())",
        [f"{LAW_OF_LOOK_BACKS}test_the_work_of_every_law"],
        "The sum over windows may converge slowly.",
    ),
    Fault(
        "look-back-without-compensation",
        "artbp/unrolls/look_back.py",
        "gate = jnp.asarray(gate_at(j), state.max_weight.dtype)",
        "gate = jnp.ones_like(state.max_weight)",
        [f"{LOOK_BACK}test_the_expectation_is_the_gradient_of_full_bptt[rnn-stored]"],
        "The windows that are reached stand for those that are not.",
    ),
    Fault(
        "look-back-gate-of-the-next-edge",
        "artbp/unrolls/look_back.py",
        "jnp.asarray(gate_at(j), state.max_weight.dtype)",
        "jnp.asarray(gate_at(j + 1), state.max_weight.dtype)",
        [f"{LOOK_BACK}test_the_expectation_is_the_gradient_of_full_bptt[rnn-stored]"],
        "The j-th edge back has the compensation of age j.",
    ),
    Fault(
        "look-back-one-window-too-few",
        "artbp/unrolls/look_back.py",
        "lax.fori_loop(1, longest(look_back), older_window, loop)",
        "lax.fori_loop(1, longest(look_back) - 1, older_window, loop)",
        [f"{LOOK_BACK}test_looking_back_m_windows_is_tbptt_k1_k2[storage0-2]"],
        "A look-back counts its own window.",
    ),
    Fault(
        "look-back-capped-at-the-stored-windows",
        "artbp/estimators/unbiased_tbptt.py",
        "most = stored.num_windows + 1",
        "most = jnp.minimum(stored.num_windows, stored_windows) + 1",
        [f"{LOOK_BACK}test_without_a_law_it_is_full_bptt[1-4-stored]"],
        "A cap is a certain boundary, which nothing compensates.",
    ),
    Fault(
        "look-back-residuals-of-another-window",
        "artbp/unrolls/look_back.py",
        "slot = jnp.where(is_stored, sizes.slot(m), sizes.spare)",
        "slot = jnp.where(is_stored, sizes.slot(m + 1), sizes.spare)",
        [f"{LOOK_BACK}test_looking_back_m_windows_is_tbptt_k1_k2[storage0-2]"],
        "Window m is taken backward by its own residuals.",
    ),
    Fault(
        "look-back-losses-of-older-windows-again",
        "artbp/unrolls/look_back.py",
        "length, place, state, reads_out=False), residuals",
        "length, place, state, reads_out=True), residuals",
        [f"{LOOK_BACK}test_looking_back_m_windows_is_tbptt_k1_k2[storage0-2]"],
        "Each loss counts once, in the window that it belongs to.",
    ),
    Fault(
        "look-back-run-again-from-the-wrong-carry",
        "artbp/unrolls/look_back.py",
        "near = _tree.index(stored.carries, m % sizes.num_carries)",
        "near = _tree.index(stored.carries, (m + 1) % sizes.num_carries)",
        [f"{LOOK_BACK}test_windows_are_run_again_with_the_params_of_now"],
        "A window is run again from the carry that entered it.",
    ),
    Fault(
        "look-back-anchors-of-the-wrong-stride",
        "artbp/unrolls/look_back.py",
        "return jnp.where(is_stored, m, m // stored.stride * stored.stride)",
        "return jnp.where(is_stored, m, m // stored.stride * stored.stride + 1)",
        [f"{LOOK_BACK}test_without_a_law_it_is_full_bptt[1-4-stored]"],
        "Behind the stored carries, windows are run from an anchor on.",
    ),
    Fault(
        "look-back-goes-on-in-a-shorter-row",
        "artbp/unrolls/look_back.py",
        "gate = jnp.where(is_taken, gate, jnp.zeros_like(gate))",
        "gate = jnp.where(is_taken, gate, gate)",
        [f"{LOOK_BACK}test_vmap_over_keys_is_a_loop_over_keys"],
        "Rows run to the longest look-back; the gate of a shorter one is 0 behind its own.",
    ),
    Fault(
        "look-back-beyond-the-history-passes",
        "artbp/estimators/unbiased_tbptt.py",
        "is_missing = oldest_step(stored, position, look_back, sizes) < 0",
        "is_missing = jnp.zeros((), bool)",
        [f"{CHUNKS}test_look_backs_beyond_the_history_are_not_a_gradient"],
        "Steps that are not there must not pass for a gradient.",
    ),
    Fault(
        "look-back-slots-as-short-as-the-window",
        "artbp/unrolls/look_back.py",
        "sizes.slot(n) * sizes.num_chunks",
        "sizes.slot(n) * num_chunks(count, sizes.chunk_size)",
        [f"{CHUNKS}test_a_last_stream_shorter_than_a_window[stored]"],
        "A slot has room for a whole window, whatever the stream's length.",
    ),
    Fault(
        "padded-steps-of-a-window-run-on",
        "artbp/unrolls/look_back.py",
        "new, place = window(position, num_steps, is_padded),",
        "new, place = window(position, num_steps),",
        [f"{LOOK_BACK}test_the_loops_of_a_short_last_window_do_not_run_on"],
        "A cell that runs on behind the stream's end may overflow, and 0 · ∞ is NaN.",
    ),
    Fault(
        "segment-beyond-the-stream-passes",
        "artbp/estimators/segmentwise.py",
        "        is_wrong = is_beyond\n",
        "        is_wrong = is_beyond & False\n",
        [f"{WEIGHTS}test_a_position_beyond_the_stream_is_refused_and_under_jit_nan[tbptt]"],
        "A state that stands beyond the stream belongs to another stream.",
    ),
    Fault(
        "steps-beyond-the-stream-pass",
        "artbp/estimators/stepwise.py",
        "        grads = _tree.nan_where(is_beyond, grads)\n",
        "",
        [f"{WEIGHTS}test_a_position_beyond_the_stream_is_refused_and_under_jit_nan[rtrl]"],
        "A state that stands beyond the stream belongs to another stream.",
    ),
    Fault(
        "run-beyond-the-stream-passes",
        "artbp/contrib/independent_runs.py",
        "_tree.nan_where(is_beyond, params)",
        "params",
        [f"{WEIGHTS}test_only_the_runs_beyond_their_stream_are_nan"],
        "A run that stands beyond the stream must not pass for a training.",
    ),
    Fault(
        "last-position-passes",
        "artbp/estimators/base.py",
        "    if position >= num_steps:\n        raise",
        "    if position > num_steps:\n        raise",
        [f"{WEIGHTS}test_a_position_beyond_the_stream_is_refused_and_under_jit_nan[tbptt]"],
        "Step T is beyond a stream of T steps.",
    ),
    Fault(
        "chunks-of-another-state-pass",
        "artbp/estimators/segmentwise.py",
        "is_cut = drawn > length",
        "is_cut = drawn < length",
        [f"{CHUNKS}test_streams_of_another_state_are_not_a_gradient"],
        "A segment that the stream cuts off is biased.",
    ),
    Fault(
        "chunks-reset-the-carry",
        "artbp/estimators/segmentwise.py",
        "begins = (at_end & ends) | starts_anew",
        "begins = at_end | starts_anew",
        [f"{CHUNKS}test_the_same_numbers_as_from_one_array[tbptt]"],
        "Where a stream goes on, so does its carry.",
    ),
    Fault(
        "segments-never-start-anew",
        "artbp/estimators/segmentwise.py",
        "begins = (at_end & ends) | starts_anew",
        "begins = at_end & ends",
        ["tests/estimators/test_segment_start.py::test_tbptt_is_the_gradient_of_short_sequences"],
        "With segment_start='initial' every segment starts with the first carry.",
    ),
    Fault(
        "chunks-reset-the-online-state",
        "artbp/estimators/stepwise.py",
        "        if stream.ends:\n            carry = _tree.replace(",
        "        if True:\n            carry = _tree.replace(",
        [f"{CHUNKS}test_the_same_numbers_as_from_one_array[rtrl]"],
        "Where a stream goes on, so does the influence of the parameters on the carry.",
    ),
    Fault(
        "chunks-end-within-a-segment",
        "artbp/stream_chunks.py",
        "stop = total if goes_on else len(reader)",
        "stop = max(total, num_steps) if goes_on else len(reader)",
        [f"{CHUNKS}test_the_same_numbers_as_from_one_array[artbp]"],
        "A stream that goes on ends where a segment does.",
    ),
    Fault(
        "chunks-without-their-history",
        "artbp/stream_chunks.py",
        "fields = reader.take(older - history, history + count)",
        "fields = reader.take(older - history + 1, history + count)",
        [f"{CHUNKS}test_the_same_numbers_as_from_one_array[tbptt]"],
        "A stream begins with the older steps.",
    ),
    Fault(
        "optimal-look-back-not-pooled",
        "artbp/truncation/look_back.py",
        "shape = np.sqrt(np.maximum(pooled, 0.0))",
        "shape = np.sqrt(np.maximum(weights, 0.0))",
        [f"{LAW_OF_LOOK_BACKS}test_the_best_survival_against_a_general_minimiser[0-0.3]"],
        "A survival never rises.",
    ),
    Fault(
        "look-back-variance-one-window-off",
        "artbp/truncation/look_back.py",
        "survival = law.survival(np.arange(len(profile) + 1))",
        "survival = law.survival(np.arange(1, len(profile) + 2))",
        [f"{LAW_OF_LOOK_BACKS}test_the_variance_is_that_of_all_look_backs[linear]"],
        "R_j comes with the probability to reach the window j back.",
    ),
    # The pages: recipes that do not do what they say.
    Fault(
        "recipe-repeats-dropout-masks",
        "docs/recipes.md",
        "artbp.with_keys(stream, dropout_key, state)",
        "artbp.with_keys(stream, dropout_key, state._replace(num_steps=state.position))",
        [f"{RECIPES}test_a_recipe[Dropout]"],
        "Every pass would have the same dropout masks.",
    ),
    Fault(
        "recipe-packs-without-resets",
        "docs/recipes.md",
        "np.roll(xs, 1, axis=0), resets, mask=~resets",
        "np.roll(xs, 1, axis=0), mask=~resets",
        [f"{RECIPES}test_a_recipe[Packed short sequences]"],
        "The gradient would cross from one sequence into the one before it.",
    ),
    Fault(
        "recipe-does-not-restore-the-optimiser",
        "docs/recipes.md",
        "params, state, opt_state = checkpoints.restore",
        "params, state, _ = checkpoints.restore",
        [f"{RECIPES}test_a_recipe[Checkpoints]"],
        "A restored training would differ from one without a stop.",
    ),
    # The package and its pages.
    Fault(
        "scipy-at-import",
        "artbp/truncation/look_back.py",
        "import numpy as np\n",
        "import numpy as np\nimport scipy.optimize  # noqa: F401\n",
        ["tests/test_package.py::test_import_needs_only_the_array_libraries"],
        "`import artbp` loads scipy, which most users never need",
    ),
    Fault(
        "annotation-missing",
        "artbp/estimators/run_pass.py",
        "    params: Any,\n    state: EstimatorState,\n",
        "    params: Any,\n    state,\n",
        ["tests/test_typed_api.py::test_the_public_names_are_annotated"],
        "a type checker takes anything as the state",
    ),
    Fault(
        "first-page-does-not-run",
        "docs/index.md",
        "state = estimator.init(params, carry, rng_key",
        "state = estimator.init(params, rng_key",
        ["tests/docs/test_docs_pages.py::test_the_program_of_the_first_page_learns"],
        "the program of the first page raises a TypeError",
    ),
    Fault(
        "tour-without-compensation",
        "docs/tour.md",
        "gates = np.where(patterns, 0, 1 / (1 - hazards))",
        "gates = np.where(patterns, 0, 1.0)",
        ["tests/docs/test_docs_pages.py::test_the_tour_prints_what_it_shows"],
        "the mean of the tour's gradients is not that of full BPTT",
    ),
    Fault(
        "anchors-unchecked",
        "docs/check_site.py",
        "if anchor not in pages[target].anchors:",
        "if False:",
        ["tests/docs/test_check_site.py::test_a_problem_is_found"],
        "a link to a heading that was renamed goes unnoticed",
    ),
    Fault(
        "misread-docstrings-unchecked",
        "docs/check_site.py",
        "if sign in text)",
        "if False)",
        ["tests/docs/test_check_site.py::test_a_problem_is_found"],
        "a docstring that Sphinx takes for a type or a list goes unnoticed",
    ),
    Fault(
        "sab-without-boundaries",
        "artbp/cells/sab.py",
        "gate(LSTMCarry(memory, hidden), is_inside)",
        "LSTMCarry(memory, hidden)",
        [f"{SAB}test_credit_reaches_far_through_what_is_read[99]"],
        "Gradients also flow through the LSTM across the boundaries of the cell.",
    ),
    Fault(
        "sab-stores-without-gradient",
        "artbp/cells/sab.py",
        "jnp.where(is_new[:, :, None], hidden[:, None], carry.memories)",
        "jnp.where(is_new[:, :, None], jax.lax.stop_gradient(hidden)[:, None], carry.memories)",
        [f"{SAB}test_values_and_gradients_of_a_loop_over_lists"],
        "The states that are read get a gradient through their scores alone.",
    ),
    Fault(
        "sab-counts-steps-of-the-first-row",
        "artbp/cells/sab.py",
        "        num_stored = carry.num_steps // store_every\n",
        "        num_stored = carry.num_steps[:1] // store_every\n",
        [f"{SAB}test_resets_of_a_row_begin_a_new_sequence"],
        "After a reset, a row reads the states of its sequence before.",
    ),
    Fault(
        "narrow-sums-shared-by-the-steps",
        "artbp/unrolls/narrow.py",
        'return "one by one" if reads else "copies"',
        'return "one by one" if reads else "shared"',
        [f"{NARROW}test_sums_over_steps_are_not_bfloat16"],
        "The gradient of a bias is summed over steps and rows in bfloat16.",
    ),
    Fault(
        "narrow-embeddings-differentiated-together",
        "artbp/unrolls/narrow.py",
        'return "one by one" if reads else "copies"',
        'return "copies"',
        [f"{NARROW}test_what_is_read_by_row_is_not_summed_in_bfloat16"],
        "The gradient of an embedding is summed over steps and rows in bfloat16.",
    ),
    Fault(
        "sum-rounded-before-the-division",
        "artbp/unrolls/chunk.py",
        "        grads=_tree.accumulate(state.readout_sums, through_cell),\n",
        "        grads=_tree.astype(\n"
        "            _tree.accumulate(state.readout_sums, through_cell), segment.params\n"
        "        ),\n",
        [f"{NARROW}test_a_sum_that_float16_does_not_hold_is_divided_first"],
        "A sum that float16 does not hold is infinite, although its mean is not.",
    ),
    Fault(
        "float16-cells-keep-their-hand-written-pass",
        "artbp/cells/base.py",
        "if any(leaf.dtype == jnp.float16 for leaf in jax.tree.leaves(own)):",
        "if False:",
        [f"{NARROW}test_a_sum_that_float16_does_not_hold_is_divided_first"],
        "That pass rounds the sum over steps to float16.",
    ),
    Fault(
        "polynomial-tail-by-the-power",
        "artbp/truncation/polynomial.py",
        "power = jnp.expm1(jnp.log(table[-1] / u) * np.float32(1 / (self.alpha - 1)))",
        "power = (table[-1] / u) ** np.float32(1 / (self.alpha - 1)) - 1",
        [
            "tests/truncation/test_laws.py::"
            "test_a_polynomial_law_that_is_nearly_geometric_has_its_lengths"
        ],
        "For a large α the power is 1 up to rounding, and lengths are too short.",
    ),
    Fault(
        "uoro-norms-in-float16",
        "artbp/estimators/uoro.py",
        "wide = map(_tree.widened, (tangent, signs, sensitivity.params, gradient))",
        "wide = tangent, signs, sensitivity.params, gradient",
        [f"{NARROW}test_uoro_in_float16_is_finite"],
        "Epsilon is rounded to 0, and the first gradient is 0.",
    ),
    Fault(
        "layer-cuts-behind-its-last-step",
        "artbp/adapters/base.py",
        "is_boundary = (steps % truncation_length == 0) & (steps < num_steps)",
        "is_boundary = steps % truncation_length == 0",
        ["tests/adapters/test_layers.py::test_the_carry_of_a_truncated_layer_has_a_gradient"],
        "A loss on the carry that the layer returns has no gradient.",
    ),
    Fault(
        "stacked-nnx-layers-share-a-mask",
        "artbp/adapters/nnx.py",
        "stream.key[...] = jax.random.split(own, shape) if shape else own",
        "stream.key[...] = own",
        ["tests/adapters/test_adapters.py::test_layers_that_nnx_stacks_have_masks_of_their_own"],
        "All layers of a stack draw the same dropout mask.",
    ),
]

# The faults of experiments/, which tests/experiments must see.
EXPERIMENT_FAULTS = [
    # attentive_backtracking.
    Fault(
        "jumps-stay-in-the-control-without-them",
        "experiments/attentive_backtracking/config.py",
        "stored = jax.lax.stop_gradient((carry.memories, carry.scores))",
        "stored = (carry.memories, carry.scores)",
        [f"{ATTENTIVE}test_whose_gradient_reaches_the_symbols[sab_without_jumps]"],
        "The control gets no gradient through stored states.",
    ),
    Fault(
        "the-gradient-of-tbptt-is-not-cut",
        "experiments/attentive_backtracking/training.py",
        "jnp.asarray(~is_cut, jnp.float32)",
        "jnp.asarray(is_cut | True, jnp.float32)",
        [f"{ATTENTIVE}test_whose_gradient_reaches_the_symbols[tbptt]"],
        "TBPTT stops the gradient at every cut.",
    ),
    # What the command line says.
    Fault(
        "second-run-unannounced",
        "experiments/common/cli.py",
        "if is_again:",
        "if False:",
        ["tests/experiments/common/test_cli.py::test_an_experiment_from_the_start"],
        "an experiment replaces the results in its folder and does not say so",
    ),
    Fault(
        "missing-package-unexplained",
        "experiments/__init__.py",
        "isinstance(error, ModuleNotFoundError)",
        "isinstance(error, FileNotFoundError)",
        [
            "tests/experiments/test_command_lines.py"
            "::test_a_missing_package_is_followed_by_how_to_install_it"
        ],
        "without the extra packages, an error does not say how to install them",
    ),
    # Choices of learning rates, and what is reported.
    Fault(
        "tuning-runs-are-reported-too",
        "experiments/common/tuning.py",
        "return runs[: config.num_tuning_runs], runs[config.num_tuning_runs :]",
        "return runs[: config.num_tuning_runs], runs[: config.num_seeds]",
        [f"{COMMON}test_tuning.py::test_tuning_runs_are_no_reported_runs"],
        "The smallest of several noisy losses is below the loss of that rate on new runs.",
    ),
    Fault(
        "tuning-on-one-run",
        "experiments/common/tuning.py",
        "means = losses.mean(axis=0)",
        "means = losses[0]",
        [f"{COMMON}test_tuning.py::test_the_rate_with_the_smallest_mean_is_chosen"],
        "A rate is chosen by the mean over all tuning runs.",
    ),
    Fault(
        "tuning-forgives-a-diverged-run",
        "experiments/common/tuning.py",
        "means = losses.mean(axis=0)",
        "means = np.nanmean(np.where(np.isfinite(losses), losses, np.nan), axis=0)",
        [f"{COMMON}test_tuning.py::test_a_rate_with_one_run_that_is_not_finite_is_never_chosen"],
        "A rate at which one run diverged is never chosen.",
    ),
    Fault(
        "memory-rate-by-the-beginning-of-a-run",
        "experiments/memory/training.py",
        "return run.loss[-1], run.params",
        "return run.loss[0], run.params",
        [f"{MEMORY}test_learning_rates_are_chosen_by_the_end_of_runs_that_are_not_reported"],
        "A large rate is best at first.",
    ),
    Fault(
        "memory-lags-shifted",
        "experiments/memory/training.py",
        "*(steps == lag for lag in lags)",
        "*(steps == lag + 1 for lag in lags)",
        [f"{MEMORY}test_counted_lags"],
        "The loss counts at the lag that the row names.",
    ),
    Fault(
        "memory-distractors-are-items",
        "experiments/memory/training.py",
        "distractors = jax.random.randint(distractor_key, shape, NUM_ITEMS, NUM_SYMBOLS)",
        "distractors = jax.random.randint(distractor_key, shape, 0, NUM_ITEMS)",
        [f"{MEMORY}test_the_stream_shows_an_item_and_then_distractors"],
        "Only the first step shows the item.",
    ),
    Fault(
        "ppo-advantages-cross-episodes",
        "experiments/recurrent_ppo/ppo.py",
        "discounts = discount * (1 - is_end.astype(values.dtype))",
        "discounts = discount * jnp.ones_like(values)",
        [f"{PPO}test_advantages_stop_where_an_episode_ends"],
        "No reward or value of the next episode counts for this one.",
    ),
    Fault(
        "ppo-clipped-without-the-minimum",
        "experiments/recurrent_ppo/ppo.py",
        "gain = jnp.minimum(ratio * target.advantage, clipped * target.advantage)",
        "gain = clipped * target.advantage",
        [f"{PPO}test_the_clipped_loss"],
        "A ratio on the wrong side of the clip still has a gradient.",
    ),
    Fault(
        "ppo-carry-of-the-next-rollout",
        "experiments/recurrent_ppo/training.py",
        "estimator.init(params, carry[rows], rng_key=key",
        "estimator.init(params, new_carry[rows], rng_key=key",
        [f"{PPO}test_every_pass_reproduces_the_rollout"],
        "A pass begins with the carry that entered the rollout's first step.",
    ),
    Fault(
        "ppo-no-resets",
        "experiments/recurrent_ppo/training.py",
        "artbp.Stream(rollout.symbol, target, resets=rollout.is_first)",
        "artbp.Stream(rollout.symbol, target)",
        [f"{PPO}test_every_pass_reproduces_the_rollout"],
        "The carry is reset where an episode begins.",
    ),
    Fault(
        "ppo-rate-of-reported-runs",
        "experiments/recurrent_ppo/training.py",
        "keys, reported = tuning.split(tuning.run_keys(config), config)",
        "reported, keys = tuning.split(tuning.run_keys(config), config)",
        [f"{PPO}test_the_rate_is_chosen_on_runs_that_are_not_reported"],
        "Rates are chosen on runs that are not reported.",
    ),
    Fault(
        "ppo-junction-is-noise",
        "experiments/recurrent_ppo/maze.py",
        "symbol = jnp.where(position == corridor_length, JUNCTION, noise)",
        "symbol = noise",
        [f"{PPO}test_the_maze"],
        "The agent sees that it stands at the junction.",
    ),
    Fault(
        "k1k2-held-out-text-of-the-training-split",
        "experiments/k1k2/training.py",
        'held_out = rows("valid", config.held_out_steps, "held_out_steps")',
        'held_out = rows("train", config.held_out_steps, "held_out_steps")',
        [f"{K1K2}test_held_out_text_is_of_the_validation_split"],
        "Held-out text is text that no run has read.",
    ),
    Fault(
        "k1k2-texts-of-runs-overlap",
        "experiments/k1k2/training.py",
        "runs = list(zip(*(np.split(part, num_runs) for part in pair), strict=True))",
        "runs = [tuple(part[: config.num_steps] for part in pair)] * num_runs",
        [f"{K1K2}test_texts_of_runs_do_not_overlap"],
        "Runs that read the same text are not independent.",
    ),
    Fault(
        "k1k2-last-quarter-is-the-last-half",
        "experiments/k1k2/training.py",
        "curves[..., -(curves.shape[-1] // 4) :]",
        "curves[..., -(curves.shape[-1] // 2) :]",
        [f"{K1K2}test_the_last_quarter_and_the_first_tenth"],
        "A table says what it averages over.",
    ),
    Fault(
        "look-back-study-subset-drawn-with-replacement",
        "experiments/look_back/variances.py",
        "centred = (within - shared / batch) * batch / (batch - 1)",
        "centred = within - shared / batch",
        [f"{LOOK_BACK_STUDY}test_the_variance_of_a_subset_of_the_rows_is_that_of_all_subsets"],
        "A subset is drawn without replacement.",
    ),
    Fault(
        "look-back-study-remainders-from-the-wrong-end",
        "experiments/look_back/gradients.py",
        "jnp.cumsum(rows[:, ::-1], axis=1)[:, ::-1]",
        "jnp.cumsum(rows, axis=1)",
        [f"{LOOK_BACK_STUDY}test_remainders_of_the_batch_are_sums_over_rows"],
        "R_j is the gradient through the windows j and more back.",
    ),
    Fault(
        "look-back-study-error-of-the-carry-counted-twice",
        "experiments/look_back/staleness.py",
        "stored - live - remainder",
        "stored - own - remainder",
        [f"{LOOK_BACK_STUDY}test_the_errors_are_those_of_the_estimator"],
        "The error of older windows is without that of the carry, which TBPTT has too.",
    ),
    Fault(
        "teacher-forcing-one-series-for-all-seeds",
        "experiments/teacher_forcing/training.py",
        "model.series(2 * seed, config.batch_size, config.num_steps)",
        "model.series(2 * config.seed, config.batch_size, config.num_steps)",
        [f"{FORCING}test_every_seed_validation_and_test_have_a_series_of_their_own"],
        "Seeds that share their data say little about the spread.",
    ),
    Fault(
        "phase-look-backs-of-rows-alone",
        "experiments/phase/prediction.py",
        "shared = of_mean * mean**2",
        "shared = 0.0",
        [f"{PHASE}test_noise_of_the_look_backs_is_that_of_all_look_backs"],
        "Rows share their look-backs, and part of the noise.",
    ),
    Fault(
        "phase-equal-work-is-equal-time",
        "experiments/phase/budget.py",
        'if equal == "steps":',
        "if equal:",
        [f"{PHASE}test_equal_memory_and_equal_work"],
        "At equal work, unbiased TBPTT has fewer time steps.",
    ),
    Fault(
        "hyperparameters-look-backs-not-compensated",
        "experiments/hyperparameters/look_backs.py",
        "weights = (look_backs[..., None] > distance) / law.survival(distance)",
        "weights = jnp.where(look_backs[..., None] > distance, 1.0, 0.0)",
        [f"{HYPER}test_slopes_of_look_backs_are_those_of_the_estimator"],
        "Without the compensation the mean over look-backs is biased.",
    ),
    # The training loop and its files.
    Fault(
        "loop-huge-finite-loss-goes-on",
        "experiments/common/chunks.py",
        "healthy = healthy & finite & (loss <= max_loss)",
        "healthy = healthy & finite",
        [f"{COMMON}test_divergence.py::test_max_loss"],
        "A loss above max_loss has diverged, although it is finite.",
    ),
    Fault(
        "loop-bad-update-is-applied",
        "experiments/common/chunks.py",
        "lambda new, old: jnp.where(healthy, new, old),",
        "lambda new, old: new,",
        [
            f"{COMMON}test_chunks.py::test_no_update_of_a_bad_segment_is_applied_and_nothing_runs_after_it"
        ],
        "The params stay those before the bad update.",
    ),
    Fault(
        "loop-skip-keeps-the-bad-carry",
        "experiments/common/divergence.py",
        "carry, inner_state = jax.lax.cond(is_bad, anew, as_it_is)",
        "carry, inner_state = as_it_is()",
        [f"{COMMON}test_divergence.py::test_skip_leaves_out_one_update_and_begins_anew"],
        "A carry of NaN makes every later segment a bad one.",
    ),
    Fault(
        "loop-skip-looks-back-behind-the-new-sequence",
        "artbp/estimators/carry_ring.py",
        "return jnp.minimum(num_steps + (end - first), end)",
        "return end",
        [
            f"{COMMON}test_divergence.py::test_the_gradients_after_a_skip_are_those_of_a_new_sequence[{name}]"
            for name in ("tbptt_stored", "adaptive_tbptt")
        ],
        "After a skip the ring holds copies of one carry, which no step has run from.",
    ),
    Fault(
        "loop-rolls-back-with-the-same-key",
        "experiments/common/divergence.py",
        "return state._replace(rng_key=jax.random.fold_in(state.rng_key, jnp.uint32(number)))",
        "return state",
        [f"{COMMON}test_divergence.py::test_roll_back_takes_another_key_and_gives_up_in_the_end"],
        "The same boundaries lead to the same divergence.",
    ),
    Fault(
        "report-a-mean-of-nan",
        "experiments/common/report.py",
        "if diverged := int(np.sum(~np.isfinite(values))):",
        "if diverged := 0:",
        [f"{COMMON}test_divergence.py::test_a_table_says_which_runs_are_not_finite"],
        "A run that diverged is a row that says so.",
    ),
    Fault(
        "memory-a-network-of-nan-is-right-by-chance",
        "experiments/memory/training.py",
        "return jnp.where(all_finite(params), found, jnp.nan)",
        "return found",
        [f"{COMMON}test_divergence.py::test_a_network_of_nan_has_no_accuracy"],
        "Its accuracy looks like that of a network without memory.",
    ),
    Fault(
        "loop-two-processes-in-one-folder",
        "experiments/common/workdir.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        [f"{COMMON}test_workdir.py::test_another_process_keeps_out_until_it_is_killed"],
        "Two processes never write one run.",
    ),
    Fault(
        "loop-rows-behind-the-checkpoint-stay",
        "experiments/common/metrics.py",
        "self._file.truncate(cursor)",
        "self._file.truncate(size)",
        [f"{COMMON}test_metrics.py::test_rows_beyond_the_cursor_are_cut_on_resume"],
        "A resumed run writes these rows again.",
    ),
    Fault(
        "padding-counts-steps-in-the-dtype-of-the-lengths",
        "artbp/padding.py",
        "xp.asarray(lengths).astype(np.int32)",
        "xp.asarray(lengths)",
        ["tests/test_padding.py::test_lengths_of_a_narrow_dtype_beside_more_steps_than_it_counts"],
        "Step 300 is step 44 in uint8, and padding counts.",
    ),
    Fault(
        "first-step-targets-give-the-losses-their-rows",
        "artbp/unrolls/first_step.py",
        "may_be_last = any(num_rows in leaf.shape for leaf in jax.tree.leaves(y))",
        "may_be_last = True",
        ["tests/unrolls/test_first_step.py::test_arrays_that_do_not"],
        "The one row of y is broadcast against the rows of the targets.",
    ),
    Fault(
        "resets-of-all-rows-replace-a-raw-key",
        "artbp/unrolls/checks.py",
        """        return
    check_raw_keys(initial_carry)
    if jnp.ndim(resets) == 1:
        return
""",
        """        return
    if jnp.ndim(resets) == 1:
        return
    check_raw_keys(initial_carry)
""",
        ["tests/unrolls/test_unroll.py::test_resets_of_all_rows_refuse_a_raw_key_too"],
        "The same noise would follow each reset.",
    ),
    Fault(
        "adaptive-length-from-no-measurement",
        "artbp/estimators/adaptive.py",
        "return _tree.select(state.weight > 0, new, state)",
        "return new",
        [
            "tests/estimators/test_adaptive.py::test_a_first_measurement_that_is_not_finite_changes_nothing"
        ],
        "0/0 makes every bias infinite, and the length jumps to the longest.",
    ),
    Fault(
        "compare-nan-at-the-end-is-scored",
        "experiments/compare/training.py",
        "no_losses = jnp.isnan(loss) & all_finite(outcome.params)",
        "no_losses = jnp.isnan(loss)",
        [
            "tests/experiments/compare/test_compare.py::test_a_training_that_diverges_at_its_end_has_no_score"
        ],
        "A diverged training would get the mean loss of its first part.",
    ),
    Fault(
        "checkpoint-files-not-hashed",
        "experiments/common/checkpoint_series.py",
        "if _hash_of_file(path) != sha256:",
        "if False:",
        [f"{COMMON}test_damaged_checkpoints.py::test_a_damaged_one_is_named_and_passed_over"],
        "orbax restores a flipped bit as another number.",
    ),
    Fault(
        "checkpoint-manifest-believed",
        "experiments/common/checkpoint_series.py",
        'if manifest.pop("sha256", None) != hash_of_json(manifest):',
        'if manifest.pop("sha256", None) is None:',
        [f"{COMMON}test_damaged_checkpoints.py::test_a_damaged_one_is_named_and_passed_over"],
        "An edited counter is damage.",
    ),
    Fault(
        "checkpoint-of-another-run-used",
        "experiments/common/checkpoint_series.py",
        'if manifest["identity"].get(name) != value:',
        "if False:",
        [f"{COMMON}test_damaged_checkpoints.py::test_a_damaged_one_is_named_and_passed_over"],
        "A checkpoint copied from another run is whole, and not of this one.",
    ),
    Fault(
        "checkpoint-not-read-back",
        "experiments/common/checkpoint_series.py",
        "if array_trees.leaf_bytes(read) != array_trees.leaf_bytes(written):",
        "if False:",
        [
            f"{COMMON}test_damaged_checkpoints.py::test_a_save_that_reads_back_as_something_else_replaces_nothing"
        ],
        "A save that cannot be read must not replace one that can.",
    ),
    Fault(
        "checkpoint-odd-path-as-syntax",
        "experiments/common/checkpoint_series.py",
        'if not re.search(r"[\\[\\]\\\\]", text) and text.isprintable():',
        "if True:",
        [f"{COMMON}test_damaged_checkpoints.py::test_odd_names_of_folders"],
        "Arrays saved under run[1] cannot be read.",
    ),
    Fault(
        "loop-counters-and-arrays-not-compared",
        "experiments/common/session.py",
        "if (epoch, time_steps) != (progress.epochs, progress.time_steps):",
        "if False:",
        [f"{COMMON}test_damaged_checkpoints.py::test_counters_that_disagree"],
        "Counters that disagree with the arrays are damage.",
    ),
    Fault(
        "processes-a-lost-one-ends-in-a-traceback",
        "experiments/common/processes.py",
        "        os._exit(LostProcessError.exit_code)\n",
        "        raise RuntimeError(reason)\n",
        [f"{COMMON}test_processes.py::test_a_killed_process_ends_the_other_in_one_line"],
        "A lost process is no bug, and the others must not wait for it at their exit.",
    ),
    Fault(
        "processes-each-stops-by-itself",
        "experiments/common/session.py",
        "processes.largest(signal.Signals[name] if name else 0, self.save_is_due)",
        "(signal.Signals[name] if name else 0, self.save_is_due)",
        [f"{COMMON}test_processes.py::test_a_signal_to_one_stops_all_after_one_save"],
        "One process stops, and the others wait for it for ever.",
    ),
    Fault(
        "devices-every-device-gets-the-first-rows",
        "experiments/common/devices.py",
        "lambda index: values[index])",
        "lambda index: values[tuple(slice(0, part.indices(n)[1] - part.indices(n)[0]) "
        "for part, n in zip(index, values.shape))])",
        [f"{COMMON}test_processes.py::test_two_processes_train_what_one_does"],
        "Each device trains on its own rows.",
    ),
    Fault(
        "slurm-signal-ends-the-training",
        "experiments/common/slurm.py",
        "signal.SIG_IGN)",
        "signal.SIG_DFL)",
        [f"{COMMON}test_slurm.py::test_a_preempted_job_is_queued_again_and_resumes"],
        "Slurm sends the signal for submitit to all processes of a job.",
    ),
    Fault(
        "runs-are-split-by-xla",
        "experiments/common/devices.py",
        "            function = jax.shard_map(\n",
        "            _ = jax.shard_map(\n",
        [f"{COMMON}test_devices.py::test_runs_over_eight_devices_are_those_of_one"],
        "A while loop over the runs of all devices asks them all whether to go on.",
    ),
    Fault(
        "repeated-runs-in-the-results",
        "experiments/common/devices.py",
        "np.asarray(leaf)[:number]",
        "np.asarray(leaf)",
        [f"{COMMON}test_devices.py::test_runs_over_eight_devices_are_those_of_one"],
        "The last run is repeated, so that all devices have equal shares.",
    ),
    Fault(
        "slurm-interrupted-job-is-a-failed-row",
        "experiments/common/slurm.py",
        "if code == TrainingInterruptedError.exit_code:",
        "if False:",
        [
            f"{COMMON}test_slurm.py::"
            "test_a_job_that_a_signal_stopped_is_submitted_again_and_one_that_was_killed_is_not"
        ],
        "Slurm may preempt a job by SIGTERM alone.",
    ),
    Fault(
        "sweep-cannot-grow",
        "experiments/sweep/running.py",
        "there if is_sweep else self._config",
        "self._config",
        [f"{SWEEP}test_each_run_becomes_a_row_and_only_what_is_missing_runs_again"],
        "One more seed would need another folder, and all runs again.",
    ),
    Fault(
        "sweep-checks-no-values",
        "experiments/sweep/plan.py",
        "        check(config)\n",
        "        _ = check\n",
        [f"{SWEEP}test_what_cannot_run_is_refused_in_one_line_and_nothing_is_written"],
        "A value that the experiment refuses would be found when its run starts, hours later.",
    ),
    Fault(
        "slurm-job-is-submitted-twice",
        "experiments/common/slurm.py",
        "found or self._submit(command, log_path)",
        "self._submit(command, log_path)",
        [
            f"{COMMON}test_slurm.py::test_jobs_of_a_study_that_was_killed_are_waited_for_and_those"
            "_of_a_stopped_one_end"
        ],
        "Two jobs would write into the same folder.",
    ),
    Fault(
        "loop-rows-of-a-lost-run-wiped",
        "experiments/common/session.py",
        "                _refuse_rows(self.workdir)\n",
        "                pass\n",
        [f"{COMMON}test_damaged_checkpoints.py::test_what_is_gone"],
        "Rows without checkpoints are those of a run that lost them.",
    ),
    Fault(
        "metrics-changed-rows-accepted",
        "experiments/common/metrics.py",
        "hashlib.sha256(rows).hexdigest() != progress.metrics_hash",
        "False",
        [f"{COMMON}test_damaged_checkpoints.py::test_a_changed_row"],
        "The rows up to the checkpoint are part of the run.",
    ),
    Fault(
        "loop-nan-in-a-row",
        "experiments/common/metrics.py",
        "return json.dumps(without_nonfinite(row), allow_nan=False)",
        "return json.dumps(row)",
        [f"{COMMON}test_metrics.py::test_every_line_is_json_that_any_reader_takes"],
        "NaN is no JSON.",
    ),
    Fault(
        "cli-time-of-another-configuration",
        "experiments/common/dry_run.py",
        "if described.to_dict() == config.to_dict():",
        "if described.to_dict():",
        [f"{COMMAND_LINES}test_the_time_of_a_changed_configuration_is_not_known"],
        "A dry run states the time of a configuration that is not the given one.",
    ),
    Fault(
        "cli-unknown-field-without-its-experiment",
        "experiments/common/cli.py",
        "load_config(defaults, _CONFIG.value, _SET.value, experiment=experiment)",
        "load_config(defaults, _CONFIG.value, _SET.value)",
        [f"{COMMAND_LINES}test_an_unknown_field_is_named_with_its_experiment"],
        "The message does not say which experiment lacks the field.",
    ),
    Fault(
        "ptb-download-without-consent",
        "experiments/ptb/command_line.py",
        "and (DOWNLOAD.value or _user_agrees())",
        "and True",
        [f"{PTB}test_ptb_command_line.py::test_nothing_is_downloaded_without_consent"],
        "A text under another licence is downloaded without a question.",
    ),
    Fault(
        "ptb-question-without-a-terminal",
        "experiments/ptb/command_line.py",
        "if not (sys.stdin.isatty() and sys.stdout.isatty()):",
        "if False:",
        [f"{PTB}test_ptb_command_line.py::test_nothing_is_downloaded_without_consent"],
        "A job without a terminal waits for an answer.",
    ),
    Fault(
        "ptb-cost-without-line-spaces",
        "experiments/ptb/cost.py",
        "length += 2 * data.NUM_TRAIN_LINES * config.data.keep_line_spaces",
        "length += 0",
        [f"{PTB}test_ptb_command_line.py::test_the_cost_of_penn_treebank_needs_no_text"],
        "A dry run counts the characters of another convention.",
    ),
    Fault(
        "report-without-escapes",
        "experiments/report/page.py",
        "    return html.escape(cell)\n",
        "    return cell\n",
        ["tests/experiments/report/test_html_report.py::test_a_study_writes_its_report"],
        "A text of the configuration is read as HTML.",
    ),
    Fault(
        "report-headline-of-the-axes",
        "experiments/report/page.py",
        "[g for g in figure if g.get",
        "[g for g in figure.iter() if g.get",
        ["tests/experiments/report/test_html_report.py::test_a_study_writes_its_report"],
        "A figure is titled with the label of a tick.",
    ),
    Fault(
        "metrics-look-backs-of-the-last-update",
        "experiments/common/metrics.py",
        "np.mean(records.look_back, dtype=np.float64)",
        "np.max(records.look_back)",
        [f"{PTB}test_ptb_html_report.py::test_the_rows_hold_the_look_backs"],
        "The mean look-back of a row is the longest.",
    ),
    Fault(
        "coming-from-torch-with-one-bias",
        "docs/coming_from.md",
        'weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]',
        'weights["lstm.bias_ih_l0"]',
        [f"{COMING_FROM}test_the_weights_after_20_updates_are_the_same[pytorch-float64-1e-12]"],
        "An LSTM of PyTorch has two biases.",
    ),
    Fault(
        "coming-from-ignite-without-weights",
        "docs/coming_from.md",
        "num_steps - rest, 1.0, 5 / max(rest, 1))",
        "num_steps - rest, 1.0, 1.0)",
        [f"{COMING_FROM}test_the_weights_after_20_updates_are_the_same[ignite-float64-1e-12]"],
        "ignite takes the mean over a shorter last segment.",
    ),
    Fault(
        "coming-from-keras-with-new-epochs",
        "docs/coming_from.md",
        "stream = artbp.Stream(xs, targets, ends=False)",
        "stream = artbp.Stream(xs, targets)",
        [f"{COMING_FROM}test_the_weights_after_20_updates_are_the_same[keras-float32-1e-05]"],
        "The state of Keras goes on across epochs.",
    ),
    Fault(
        "coming-from-scanned-rnn-without-resets",
        "docs/coming_from.md",
        "xs, carry=carry, resets=done)",
        "xs, carry=carry)",
        [f"{COMING_FROM}test_scanned_rnn"],
        "ScannedRNN resets the carry where an episode begins.",
    ),
    Fault(
        "uncounted-values-reach-the-loss",
        "artbp/unrolls/readout.py",
        "    if is_masked:\n        params, ys",
        "    if False:\n        params, ys",
        [f"{UNCOUNTED}test_every_kernel"],
        "What does not count leaves 0 · NaN in the gradient.",
    ),
    Fault(
        "shared-arrays-are-taken-for-rows",
        "artbp/unrolls/uncounted.py",
        "not can_have_twice(doubled - {i})",
        "True",
        [f"{UNCOUNTED}test_a_shared_array_that_a_loss_reads_across_rows"],
        "A target that rows share is changed where a row does not count.",
    ),
    Fault(
        "nothing-counts-and-params-are-not-cut",
        "artbp/unrolls/uncounted.py",
        "jnp.where(any_counts, x, lax.stop_gradient(x))",
        "x",
        [f"{UNCOUNTED}test_nothing_counts"],
        "Where nothing counts, NaN targets reach the gradient.",
    ),
    Fault(
        "inputs-are-copied-for-nothing",
        "artbp/padding.py",
        "if _tree.is_known(leaf) and not wrong.any():",
        "if False:",
        [f"{UNCOUNTED}test_inputs_of_rows_that_never_count"],
        "A stream with a row that never counts copies its inputs only if there is NaN in them.",
    ),
    Fault(
        "lengths-of-rows-of-other-processes-are-read",
        "artbp/padding.py",
        "if not _tree.is_known(lengths):",
        "if isinstance(lengths, jax.core.Tracer):",
        ["tests/docs/test_docs_devices.py::test_the_program_in_one_and_in_several_processes[two]"],
        "JAX refuses to read an array of which another process holds a part.",
    ),
    Fault(
        "rows-that-never-count-stay-nan",
        "artbp/padding.py",
        "    if not unused.any():",
        "    if True:",
        [f"{UNCOUNTED}test_every_kernel"],
        "NaN inputs of a row that never counts reach the gradient.",
    ),
    Fault(
        "learned-carry-at-later-steps",
        "artbp/learned_carry.py",
        "_tree.replace(~state.has_begun",
        "_tree.replace(state.has_begun",
        ["tests/test_learned_carry.py::test_exact_rows"],
        "The learned carry replaces the carry at all steps but the first.",
    ),
    Fault(
        "long-memory-counts-blanks",
        "experiments/long_memory/problems.py",
        "is_right[-last:]",
        "is_right",
        [f"{LONG_MEMORY}test_shares_of_right_answers"],
        "Blanks, which are easy, count as recalled symbols.",
    ),
    Fault(
        "long-memory-gives-every-arm-the-same-steps",
        "experiments/long_memory/training.py",
        "config.num_sequences * TBPTT_WORK / arm.work",
        "config.num_sequences",
        [f"{LONG_MEMORY}test_all_trainings_have_the_same_work_up_to_a_sequence"],
        "A costly step takes more work than a step of TBPTT.",
    ),
    Fault(
        "long-memory-leaves-out-a-block",
        "experiments/long_memory/arms.py",
        "np.arange(block, 10**6, block)",
        "np.arange(2 * block, 10**6, block)",
        [f"{LONG_MEMORY}test_the_share_of_steps_that_blocks_run_again"],
        "Every block but the last runs again.",
    ),
    Fault(
        "sweep-a-failed-run-with-results-is-finished",
        "experiments/sweep/running.py",
        "if run in self._failures:  # also",
        "if found is None and run in self._failures:  # also",
        [f"{SWEEP}test_a_sweep_on_slurm_has_the_same_rows"],
        "Results may have been read while the run was still going on.",
    ),
    Fault(
        "ptb-authors-joins-rows-of-another-training",
        "experiments/ptb_authors/rows.py",
        "                _refuse_other_training(path, training, config)\n",
        "                pass\n",
        [
            "tests/experiments/ptb_authors/test_ptb_authors.py"
            "::test_rows_of_another_training_do_not_join"
        ],
        "Differences of runs with another batch or cell say nothing about the arms.",
    ),
    Fault(
        "report-metrics-truncated-in-place",
        "experiments/common/report.py",
        'write_atomically(folder / "metrics.jsonl", "".join(map(as_line, metrics)))',
        'with (folder / "metrics.jsonl").open("w") as file:\n'
        "            file.writelines(map(as_line, metrics))",
        [
            "tests/experiments/report/test_html_report.py"
            "::test_files_are_written_whole_or_not_at_all"
        ],
        "An error leaves half a file in the place of that of an earlier run.",
    ),
    Fault(
        "arms-from-zero-without-bias",
        "experiments/common/arms.py",
        'if segment_start == "initial":',
        "if False:",
        [
            f"{COMMON}test_arms.py::test_compensation_makes_no_arm_from_zero_unbiased[law='geometric']"
        ],
        "The compensated gradient of segments from the zero state is that of no loss.",
    ),
    Fault(
        "long-memory-does-not-count-windows-that-run-again",
        "experiments/common/arms.py",
        "forward = 1 + extra if again else 1.0",
        "forward = 1.0",
        [f"{LONG_MEMORY}test_the_work_of_an_arm_is_the_steps_that_its_program_makes"],
        "Look-backs run the forward pass of older windows again.",
    ),
    Fault(
        "auxiliary-draws-params-and-data-with-one-key",
        "experiments/auxiliary/training.py",
        "init_keys, data_keys, test_keys = rng_keys.T",
        "data_keys, _, test_keys = rng_keys.T\n        init_keys = data_keys",
        [
            "tests/experiments/auxiliary/test_auxiliary_study.py"
            "::test_anchors_first_params_data_and_tests_are_drawn_with_keys_of_their_own"
        ],
        "The first weights are then tied to the symbols.",
    ),
    Fault(
        "coming-from-persistent-es-with-every-loss",
        "docs/coming_from.md",
        "mask=(jnp.arange(T) + 1) % K == 0, ",
        "",
        [f"{COMING_FROM}test_persistent_es"],
        "Their loss is that of the last step of an unroll.",
    ),
]

FAULTS = LIBRARY_FAULTS + EXPERIMENT_FAULTS


class Outcome(NamedTuple):
    """verdict: red, GREEN, or what went wrong; seen_by: the test that failed."""

    verdict: str
    seen_by: str
    seconds: float


def check_faults(root: Path = ROOT) -> list[str]:
    """Returns a message for each fault that cannot be planted or that names no existing test."""
    problems = []
    names = [fault.name for fault in FAULTS]
    problems += [f"{name}: the name is used twice" for name in set(names) if names.count(name) > 1]
    for fault in FAULTS:
        count = _read(root / fault.file).count(fault.old)
        if count != 1 or fault.old == fault.new:
            problems.append(
                f"{fault.name}: its old text occurs {count} times in {fault.file}; expected once. "
                "Adapt the fault in tests/faults.py to the code as it is now."
            )
        for test in fault.tests:
            path, _, name = test.partition("::")
            function = name.partition("[")[0]
            if f"def {function}(" not in _read(root / path):
                problems.append(f"{fault.name}: there is no test {test}")
    return problems


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def copy_repository(folder: Path) -> Path:
    """Copies the tracked files as they are in the working tree; returns the folder of the copy."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    # An installed artbp, perhaps one that points at ROOT, must not be the one under test.
    found = run_python(folder, "-c", "import artbp; print(artbp.__file__)").stdout.strip()
    assert Path(found).resolve() == (folder / "artbp" / "__init__.py").resolve(), found
    return folder


def run_python(
    folder: Path, *arguments: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs Python in a copy of the repository, whose packages are used."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "COLUMNS": "240",  # room for the reason of a failure behind the name of the test
        "PYTHONDONTWRITEBYTECODE": "1",  # a stale one could hide a fault planted within a second
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run_tests(
    folder: Path, tests: list[str], *options: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs pytest on the given tests in a copy of the repository."""
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
    return run_python(folder, *command, timeout=timeout)


def plant(folder: Path, fault: Fault) -> Outcome:
    """Plants the fault in a copy of the repository, runs its tests, and restores the file."""
    path = folder / fault.file
    original = path.read_text(encoding="utf-8")
    assert original.count(fault.old) == 1, f"{fault.name} does not apply to {fault.file}"
    begin = time.monotonic()
    try:
        path.write_text(original.replace(fault.old, fault.new), encoding="utf-8")
        process = run_tests(folder, fault.tests, "-x", "-n0", timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return Outcome(f"ERROR: no end after {TIMEOUT} s", "", time.monotonic() - begin)
    finally:
        path.write_text(original, encoding="utf-8")
    seconds = time.monotonic() - begin
    if process.returncode == 0:
        return Outcome("GREEN", "", seconds)
    failed = re.search(r"^(?:FAILED|ERROR) (.*)$", process.stdout, re.MULTILINE)
    if process.returncode != 1 or failed is None:
        tail = (process.stdout + process.stderr)[-2000:]
        return Outcome(f"ERROR: pytest exited with {process.returncode}:\n{tail}", "", seconds)
    return Outcome("red", failed[1], seconds)


def run_control(folder: Path, faults: list[Fault], jobs: int) -> Outcome:
    """Runs the tests of all faults on the unchanged code."""
    tests = list(dict.fromkeys(test for fault in faults for test in fault.tests))
    begin = time.monotonic()
    process = run_tests(folder, tests, "-n", str(jobs if jobs > 1 else 0))
    seconds = time.monotonic() - begin
    passed = re.search(r"(\d+) passed", process.stdout)
    if process.returncode != 0 or passed is None or int(passed[1]) < len(tests):
        tail = (process.stdout + process.stderr)[-6000:]
        return Outcome(f"RED, or not all {len(tests)} tests were run:\n{tail}", "", seconds)
    return Outcome(f"green, {len(tests)} tests", "", seconds)


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to plant; default: all")
    parser.add_argument("--list", action="store_true", help="list the faults and exit")
    parser.add_argument("--jobs", type=int, default=1, help="faults planted at the same time")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"no faults of the names {', '.join(sorted(unknown))}; --list shows them")
    faults = [fault for fault in FAULTS if not options.names or fault.name in options.names]
    if options.list:
        for fault in faults:
            print(f"{fault.name}\n    {fault.file}: {fault.why}\n    {' '.join(fault.tests)}")
        return 0
    problems = check_faults()
    if problems:
        print("\n".join(problems))
        return 1

    with tempfile.TemporaryDirectory(prefix="artbp-faults-") as parent:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        folder = Path(parent) / "0"
        copies.put(copy_repository(folder))
        for i in range(1, options.jobs):
            copies.put(Path(shutil.copytree(folder, Path(parent) / str(i))))
        control = run_control(folder, faults, options.jobs)
        print(f"control: {control.verdict}, {control.seconds:.0f} s", flush=True)
        if not control.verdict.startswith("green"):
            return 1

        def one(fault: Fault) -> Outcome:
            folder = copies.get()
            try:
                return plant(folder, fault)
            finally:
                copies.put(folder)

        print(f"{'fault':<42} {'verdict':<7} {'s':>4}  seen by")
        begin, others = time.monotonic(), []
        with ThreadPoolExecutor(options.jobs) as pool:
            for fault, outcome in zip(faults, pool.map(one, faults), strict=True):
                verdict, _, detail = outcome.verdict.partition(":")
                seen_by = outcome.seen_by or " ".join(fault.tests)
                row = f"{fault.name:<42} {verdict:<7} {outcome.seconds:>4.0f}  {seen_by:.150}"
                print(row + detail, flush=True)
                if verdict != "red":
                    others.append(fault.name)
    red = len(faults) - len(others)
    print(f"{len(faults)} faults, {red} red, in {time.monotonic() - begin:.0f} s")
    if others:
        print(f"not red: {', '.join(others)}")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
