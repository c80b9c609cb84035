"""A sequence in chunks gives the same numbers, bit for bit, as the sequence in one array."""

import copy
import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import make_problem

import artbp
from artbp import truncation

NUM_STEPS = 203  # no multiple of a window or a chunk
ESTIMATORS = {
    "tbptt": lambda problem: artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=10),
    "unbiased_tbptt": lambda problem: artbp.unbiased_tbptt(
        problem.cell, problem.loss_fn, truncation.geometric(2), truncation_length=5
    ),
    "artbp": lambda problem: artbp.artbp(
        problem.cell, problem.loss_fn, truncation.polynomial(6, 4), block_size=8
    ),
    "rtrl": lambda problem: artbp.rtrl(problem.cell, problem.loss_fn, update_every=4),
}

# Their random numbers are the same in chunks too.
WITH_RANDOM_NUMBERS = {
    "uoro": lambda problem: artbp.uoro(problem.cell, problem.loss_fn, update_every=4),
    "pes": lambda problem: artbp.pes(
        problem.cell, problem.loss_fn, truncation_length=5, num_pairs=2
    ),
    "forward_gradient": lambda problem: artbp.forward_gradient(
        problem.cell, problem.loss_fn, update_every=4
    ),
}


def make(num_steps=NUM_STEPS):
    """Some resets are of both rows, where also the perturbations of PES begin again."""
    problem = make_problem("gru", num_steps, resets=True, mask=True)
    resets = np.array(problem.stream.resets)
    resets[::25] = True
    return problem._replace(stream=dataclasses.replace(problem.stream, resets=resets))


def train(estimator, problem, state, streams):
    """An update per estimate. Returns what each estimate gives, the params and the state."""
    optimizer = optax.sgd(1e-2, momentum=0.9)
    params, found = problem.params, []
    opt_state = optimizer.init(params)
    for stream in streams:
        is_over = False
        while not is_over:
            grads, state, info = estimator.estimate(params, state, stream)
            updates, opt_state = optimizer.update(grads, opt_state)
            params = optax.apply_updates(params, updates)
            is_over = bool(info.end_of_stream)
            found.append((int(info.length), float(info.loss_sum)))
    return found, params, state


def assert_equal(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def chunks_of(stream, size):
    """NumPy chunks of a size that fits nothing."""
    for first in range(0, stream.num_steps, size):
        fields = (stream.xs, stream.targets, stream.resets, stream.mask)
        yield artbp.Stream(*(np.asarray(leaf)[first : first + size] for leaf in fields))


@pytest.mark.parametrize("name", [*ESTIMATORS, *WITH_RANDOM_NUMBERS])
def test_the_same_numbers_as_from_one_array(name):
    """Two passes; the second goes on from the params and the state behind the first."""
    problem = make()
    estimator = (ESTIMATORS | WITH_RANDOM_NUMBERS)[name](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
    whole = problem, state
    chunked = dict.fromkeys((7, 1000), whole)
    for _ in range(2):
        expected, params, state = train(estimator, *whole, [problem.stream])
        whole = problem._replace(params=params), state
        for size, begin in chunked.items():
            chunks = chunks_of(problem.stream, size)
            streams = artbp.stream_chunks(chunks, estimator, begin[1], num_steps=30)
            found, chunked_params, chunked_state = train(estimator, *begin, streams)
            assert found == expected
            assert sum(length for length, _ in found) == NUM_STEPS
            assert_equal(chunked_params, params)
            assert_equal(chunked_state.carry, state.carry)
            chunked[size] = problem._replace(params=chunked_params), chunked_state


def generator(xs, targets, folder):
    del folder
    return ((xs[t : t + 7], targets[t : t + 7]) for t in range(0, len(xs), 7))


def memory_map(xs, targets, folder):
    mapped = []
    for name, array in (("xs", xs), ("targets", targets)):
        np.save(folder / f"{name}.npy", array)
        mapped.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return generator(*mapped, folder)


def torch_loader(xs, targets, folder):
    torch = pytest.importorskip("torch")
    chunks = [tuple(map(np.copy, chunk)) for chunk in generator(xs, targets, folder)]
    return torch.utils.data.DataLoader(chunks, batch_size=None)


@pytest.mark.parametrize("source", [generator, memory_map, torch_loader])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_loaders_of_all_kinds(name, source, tmp_path):
    problem = make_problem("rnn", NUM_STEPS)
    problem = problem._replace(stream=artbp.Stream(problem.stream.xs, problem.stream.targets))
    estimator = ESTIMATORS[name](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
    arrays = np.asarray(problem.stream.xs), np.asarray(problem.stream.targets)
    streams = artbp.stream_chunks(source(*arrays, tmp_path), estimator, state, num_steps=30)
    expected, params, _ = train(estimator, problem, state, [problem.stream])
    found, found_params, _ = train(estimator, problem, state, streams)
    assert found == expected
    assert_equal(found_params, params)


def test_the_state_may_be_donated(monkeypatch):
    """The lengths that are drawn while the streams are used need a key that is still there."""
    monkeypatch.setattr(sys.modules["artbp.stream_chunks"], "_AHEAD", 4)
    problem = make()
    estimator = ESTIMATORS["artbp"](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
    streams = artbp.stream_chunks(chunks_of(problem.stream, 7), estimator, state, num_steps=30)
    step, num_steps = jax.jit(estimator.estimate, donate_argnums=1), 0
    for stream in streams:
        is_over = False
        while not is_over:
            _, state, info = step(problem.params, state, stream)
            is_over, num_steps = bool(info.end_of_stream), num_steps + int(info.length)
    assert num_steps == NUM_STEPS


@pytest.mark.parametrize("mode", ["stored", "reforward"])
def test_a_last_stream_shorter_than_a_window(mode):
    """Windows of several kernel chunks, all of which are looked back to from the last one."""
    problem = make_problem("rnn", 45)  # no resets, and a memory of many steps
    estimator = artbp.unbiased_tbptt(
        problem.cell,
        problem.loss_fn,
        truncation.never(),
        truncation_length=20,
        mode=mode,
        stored_windows=2,
        stored_carries=4,
    )
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    arrays = np.asarray(problem.stream.xs), np.asarray(problem.stream.targets)
    streams = artbp.stream_chunks(generator(*arrays, None), estimator, state, num_steps=20)
    last = {}
    for name, given in (("whole", [problem.stream]), ("chunks", streams)):
        at = state
        for stream in given:
            is_over = False
            while not is_over:
                grads, at, info = estimator.estimate(problem.params, at, stream)
                is_over = bool(info.end_of_stream)
        last[name] = grads
    assert int(info.length) == 5 and int(info.extra["look_back"]) == 3
    for leaf, other in zip(*map(jax.tree.leaves, last.values()), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-6)


def test_streams_of_another_state_are_not_a_gradient():
    """The segments of the second pass are others than those that the streams were made for."""
    problem = make()
    for policy in ("dynamic", "exact"):
        law = truncation.polynomial(6, 4)
        estimator = artbp.artbp(problem.cell, problem.loss_fn, law, policy=policy)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
        chunks = chunks_of(problem.stream, 7)
        streams = list(artbp.stream_chunks(chunks, estimator, state, num_steps=30))
        other = state._replace(rng_key=jax.random.key(6))
        if policy == "exact":
            with pytest.raises(ValueError, match="steps left, and goes on"):
                train(estimator, problem, other, streams)
        else:
            _, params, _ = train(estimator, problem, other, streams)
            assert jnp.isnan(params["readout"]).all()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_lengths_drawn_ahead_are_those_that_are_run(impl):
    """Under `jax.vmap`, keys of some implementations would give other numbers."""

    def cell(params, carry, x):
        carry = params * carry + x
        return carry, carry

    def build(policy):
        law = truncation.geometric(8)
        return artbp.artbp(cell, lambda params, y, target: y, law, policy=policy)

    def lengths_of(estimator, streams):
        state, lengths = start, []
        for stream in streams(estimator):
            is_over = False
            while not is_over:
                grads, state, info = estimator.estimate(params, state, stream)
                assert np.isfinite(grads)
                is_over = bool(info.end_of_stream)
                lengths.append(int(info.length))
        return lengths

    params, xs = jnp.float32(0.5), np.ones(150, np.float32)
    start = build("dynamic").init(params, jnp.zeros(()), rng_key=jax.random.key(0, impl=impl))
    expected = lengths_of(build("dynamic"), lambda _: [artbp.Stream(xs)])

    def in_chunks(estimator):
        return artbp.stream_chunks(
            [(xs[:70], None), (xs[70:], None)], estimator, start, num_steps=60
        )

    assert lengths_of(build("dynamic"), in_chunks) == expected
    assert lengths_of(build("pow2"), lambda _: [artbp.Stream(xs)]) == expected


def test_a_stream_on_the_device_is_rebuilt_without_reading_it(monkeypatch):
    """Else a stream that is put on the device ahead of use would wait for its transfer."""
    stream = artbp.Stream(np.ones((4, 2)), mask=np.ones((4, 2), np.float32))

    def refuse(mask):
        raise AssertionError("The mask is read.")

    monkeypatch.setattr("artbp.stream._check_weights", refuse)
    moved = jax.device_put(stream)
    assert isinstance(moved, artbp.Stream) and isinstance(moved.mask, jax.Array)
    assert moved.num_steps == 4 and moved.ends


@pytest.mark.parametrize("name", ["tbptt", "rtrl"])
def test_the_state_stays_int32_whatever_the_integers_of_the_stream(name, float64):
    problem = make(12)
    stream = dataclasses.replace(problem.stream, stop=np.int64(11))
    estimator = ESTIMATORS[name](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    _, state, _ = estimator.estimate(problem.params, state, stream)
    assert state.position.dtype == state.num_steps.dtype == np.int32


def test_an_estimator_is_copied_with_its_plan():
    problem = make(12)
    estimator = ESTIMATORS["artbp"](problem)
    for other in (estimator._replace(estimate=jax.jit(estimator.estimate)), copy.copy(estimator)):
        assert isinstance(other, artbp.ChunkedEstimator) and other.plan is estimator.plan
        assert other.init is estimator.init


def test_chunks_that_are_cut_anywhere_would_not_do():
    """The control: the same chunks, each as a stream of its own that ends."""
    problem = make()
    estimator = ESTIMATORS["tbptt"](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
    expected, _, _ = train(estimator, problem, state, [problem.stream])
    found, _, _ = train(estimator, problem, state, chunks_of(problem.stream, 20))
    assert [loss for _, loss in found[:2]] == [loss for _, loss in expected[:2]]
    assert abs(found[2][1] - expected[2][1]) > 1e-4


def test_chunks_by_hand():
    """Chunks of whole windows need no helper: the carry goes on."""
    problem = make(40)
    estimator = ESTIMATORS["tbptt"](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
    expected, params, _ = train(estimator, problem, state, [problem.stream])
    fields = (problem.stream.xs, problem.stream.targets, problem.stream.resets, problem.stream.mask)
    first, second = ([leaf[a:b] for leaf in fields] for a, b in ((0, 20), (20, 40)))
    streams = [artbp.Stream(*first, ends=False), artbp.Stream(*second)]
    found, found_params, _ = train(estimator, problem, state, streams)
    assert found == expected
    assert_equal(found_params, params)


def test_the_shapes_of_streams_do_not_change():
    """A random segment longer than a stream gets a longer one, and all others are alike."""
    problem = make()
    key = jax.random.key(5)
    for name, estimator in ((name, make_it(problem)) for name, make_it in ESTIMATORS.items()):
        state = estimator.init(problem.params, problem.carry, rng_key=key)
        streams = list(
            artbp.stream_chunks(chunks_of(problem.stream, 7), estimator, state, num_steps=30)
        )
        sizes = [stream.num_steps for stream in streams]
        assert len(set(sizes[:-1])) == 1 or name == "artbp"
        assert all(size % 30 == 0 for size in sizes) or name != "artbp"
        assert [stream.ends for stream in streams] == [False] * (len(streams) - 1) + [True]
        assert sum(int(stream.num_new) for stream in streams) == NUM_STEPS


def test_chunks_are_read_as_they_are_needed():
    """The host holds one stream and one chunk, whatever the length of the sequence."""
    problem = make()
    estimator = ESTIMATORS["unbiased_tbptt"](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
    read = []

    def endless():
        while True:
            read.append(1)
            yield np.zeros((10, 2, 3), np.float32), np.zeros((10, 2), np.float32)

    streams = artbp.stream_chunks(endless(), estimator, state, num_steps=20, prefetch=1)
    for i in range(1, 30):
        next(streams)
        assert len(read) <= 2 * (i + 1) + 1


@pytest.mark.parametrize("kind", ["bptt", "tbptt_k1_k2", "adaptive_tbptt", "offset drawn"])
def test_estimators_that_refuse_chunks(kind):
    problem = make(20)
    functions = problem.cell, problem.loss_fn
    estimator = {
        "bptt": lambda: artbp.bptt(*functions),
        "tbptt_k1_k2": lambda: artbp.tbptt_k1_k2(*functions, k1=2, k2=4),
        "adaptive_tbptt": lambda: artbp.adaptive_tbptt(*functions),
        "offset drawn": lambda: artbp.tbptt(*functions, truncation_length=5, draw_offset=True),
    }[kind]()
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    stream = artbp.Stream(problem.stream.xs, problem.stream.targets, ends=False)
    with pytest.raises(ValueError, match="needs the whole sequence"):
        estimator.estimate(problem.params, state, stream)
    with pytest.raises(ValueError, match="needs the whole sequence"):
        artbp.stream_chunks([], estimator, state, num_steps=10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tbptt", "15 new steps, but an estimate takes 10 steps"),
        ("artbp", "a random number of steps"),
        ("unbiased_tbptt", "reads up to"),
    ],
)
def test_streams_that_would_end_in_a_segment_are_refused(name, message):
    problem = make(15)
    estimator = ESTIMATORS[name](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    stream = artbp.Stream(problem.stream.xs, problem.stream.targets, ends=False)
    with pytest.raises(ValueError, match=message):
        estimator.estimate(problem.params, state, stream)


def test_look_backs_beyond_the_history_are_not_a_gradient():
    problem = make(20)
    storage = {"mode": "reforward", "stored_carries": 2}
    estimator = artbp.unbiased_tbptt(
        problem.cell, problem.loss_fn, truncation.fixed(4), truncation_length=2, **storage
    )
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    chunks = chunks_of(problem.stream, 4)
    streams = list(artbp.stream_chunks(chunks, estimator, state, num_steps=2))
    finite = []
    for stream in streams:
        grads, state, _ = estimator.estimate(problem.params, state, stream)
        finite.append(bool(jnp.isfinite(grads["readout"]).all()))
    assert finite[:3] == [True] * 3
    assert not any(finite[3:])


class SeldomEnding(truncation.TruncationLaw):
    """Half of the segments have one step, the others never end."""

    def hazard(self, k):
        return jnp.where(jnp.asarray(k) == 1, 0.5, 0.0)


def test_segments_that_never_end(monkeypatch):
    """The last one may outlast the sequence. Behind one that is too long, nothing may follow."""
    problem = make(40)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, SeldomEnding(), compensate=False)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
    module = sys.modules["artbp.stream_chunks"]
    monkeypatch.setattr(module, "_LONGEST", 50)
    streams = artbp.stream_chunks(chunks_of(problem.stream, 7), estimator, state, num_steps=10)
    expected, _, _ = train(estimator, problem, state, [problem.stream])
    found, _, _ = train(estimator, problem, state, streams)
    assert found == expected
    monkeypatch.setattr(module, "_LONGEST", 20)
    streams = artbp.stream_chunks(chunks_of(problem.stream, 7), estimator, state, num_steps=10)
    with pytest.raises(ValueError, match="has 20 steps or more"):
        list(streams)


def test_the_state_of_several_runs():
    problem = make(20)
    estimator = ESTIMATORS["tbptt"](problem)
    keys = jax.random.split(jax.random.key(0), 3)
    state = jax.vmap(lambda key: estimator.init(problem.params, problem.carry, rng_key=key))(keys)
    with pytest.raises(ValueError, match=r"several runs: its position has shape \(3,\)"):
        artbp.stream_chunks([], estimator, state, num_steps=10)
    first = jax.tree.map(lambda leaf: leaf[0], state)
    chunks = chunks_of(problem.stream, 7)
    assert len(list(artbp.stream_chunks(chunks, estimator, first, num_steps=10))) == 2


def test_bad_input():
    problem = make(20)
    estimator = ESTIMATORS["tbptt"](problem)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match="chunks yields nothing"):
        list(artbp.stream_chunks([], estimator, state, num_steps=10))
    with pytest.raises(ValueError, match="num_steps=0"):
        artbp.stream_chunks([], estimator, state, num_steps=0)
    xs = np.zeros((5, 2, 3), np.float32)
    with pytest.raises(ValueError, match="differ in their fields"):
        list(artbp.stream_chunks([(xs, xs), (xs, None)], estimator, state, num_steps=10))
    with pytest.raises(ValueError, match="is ndarray; expected a Stream or a pair"):
        list(artbp.stream_chunks([xs], estimator, state, num_steps=10))
    with pytest.raises(ValueError, match="targets has shape"):
        list(artbp.stream_chunks([(xs, xs[:4])], estimator, state, num_steps=10))
    with pytest.raises(ValueError, match=r"Chunk 1 of the loader .* has no steps"):
        list(artbp.stream_chunks([(xs, xs), (xs[:0], xs[:0])], estimator, state, num_steps=10))
    with pytest.raises(ValueError, match="ends=False"):
        chunk = artbp.Stream(xs, xs, ends=False)
        list(artbp.stream_chunks([chunk], estimator, state, num_steps=10))
    with pytest.raises(ValueError, match=r"Stream\.stop is 200"):
        estimator.estimate(problem.params, state, artbp.Stream(xs, xs, stop=np.int32(200)))
    _, within, _ = estimator.estimate(problem.params, state, problem.stream)
    with pytest.raises(ValueError, match="stands at step 10"):
        artbp.stream_chunks([(xs, xs)], estimator, within, num_steps=10)
    with pytest.raises(ValueError, match="history=20"):
        artbp.Stream(problem.stream.xs, history=20)
