"""Tests several training steps that XLA compiles into one program.

The program must give the same bits as the steps that run one by one. Its loop must not copy the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.training import loop, program
from lowlevel_simclr.training.learner import Learner, build_learner
from lowlevel_simclr.training.plan import Plan, load_images, make_plan
from lowlevel_simclr.training.step import Batch, Metrics
from tests.support.compiled_program import find_loop_bodies, list_copies, read_compiled

pytestmark = pytest.mark.usefixtures("small_runs")

STEPS = 3  # steps in one program
# XLA cannot call the native ops (compiled C++ code of this package) in TensorFlow before 2.18.
OPS = "native" if tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 18) else "stock"
SMALL = {"batch_size": 8, "image_size": 16, "steps": 12, "xla": "on", "precision": "float32", "steps_per_call": STEPS}
SMALL["ops"] = OPS


@pytest.fixture(autouse=True)
def seeded() -> None:
    tf.keras.utils.set_random_seed(1)


def prepare(**settings: object) -> tuple[Plan, Learner, Iterator[Batch], loop.Gather | None]:
    """Return the parts of a training loop. The given settings replace settings in `SMALL`."""
    config = replace(Config(), **{**SMALL, **settings})
    images = load_images(config)
    plan = make_plan(config, images)
    learner, fetch = build_learner(plan, 3), loop.make_fetch(plan, images)
    batches = make_batches(images.train.images, plan.batch_size, plan.seed, 0, plan.steps, with_images=fetch is None)
    return plan, learner, iter(batches), fetch


def train(calls: list[int], inside: bool, **settings: object) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Train in several calls of TensorFlow from Python (host calls). Return their metrics and the final state.

    `calls` has the number of steps of each host call. With `inside`, the loop over the steps is inside the XLA program.
    Otherwise TensorFlow runs this loop.
    """
    plan, learner, batches, fetch = prepare(**settings)
    one_step = loop.make_step(plan, learner)
    if inside:
        steps = program.compile_program(one_step, plan.steps_per_program, fetch)
    else:
        steps = loop.compile_steps(one_step, True, fetch)
    metrics = [steps(batches, tf.constant(count)) for count in calls]
    return [np.concatenate(each) for each in zip(*metrics)], learner.read_arrays()


def assert_same_bits(first: tuple[list[np.ndarray], dict[str, np.ndarray]], second: object) -> None:
    for one, other in zip(first[0], second[0]):
        np.testing.assert_array_equal(one, other)
    for name, value in first[1].items():
        np.testing.assert_array_equal(value, second[1][name], err_msg=name)


def test_a_program_of_three_steps_has_the_bits_of_three_steps() -> None:
    inside = train([1, STEPS], True)
    assert np.isfinite(inside[0][0]).all() and len(set(inside[0][0].tolist())) == 1 + STEPS
    assert_same_bits(inside, train([1, STEPS], False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"},
        {"optimizer": "lars"},
        {"optimizer": "lamb"},
        {"optimizer": "adamw", "precision": "bfloat16"},
        {"optimizer": "lars", "precision": "float16"},
        {"micro_batch": "4"},
        {"data_on": "host"},
        {"ops": "stock"},
        {"batch_norm": "ghost", "ghost_batch": 4},
        {"encoder": "resnet18", "stem": "imagenet", "image_size": 32},
    ],
    ids=str,
)
def test_every_kind_of_step_has_the_same_bits_inside_the_program(settings: dict[str, object]) -> None:
    assert_same_bits(train([1, STEPS, STEPS, 2], True, **settings), train([1, STEPS, STEPS, 2], False, **settings))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw", "lamb"])
def test_a_step_whose_gradients_overflow_changes_no_weight_inside_the_program(optimizer: str) -> None:
    """Test a loss scale that is too large at first. Each skipped step halves it, until a step changes the weights."""
    found = []
    for inside in (True, False):
        plan, learner, batches, fetch = prepare(optimizer=optimizer, precision="float16")
        learner.loss_scale.scale.assign(2.0**26)
        before = learner.read_arrays()
        one_step = loop.make_step(plan, learner)
        run = program.compile_program(one_step, 1, fetch) if inside else loop.compile_steps(one_step, True, fetch)
        skipped = 0
        while skipped == learner.step.numpy():
            now = learner.read_arrays()
            run(batches, tf.constant(1))
            if learner.loss_scale.good_steps.numpy() == 0:
                skipped += 1
                for name, value in learner.read_arrays().items():
                    if name.startswith(("optimizer", "projection")) or name in trainable_names(learner):
                        np.testing.assert_array_equal(value, now[name], err_msg=name)
        assert skipped > 1 and learner.loss_scale.scale.numpy() == 2.0 ** (26 - skipped)
        after = learner.read_arrays()
        assert any((after[name] != before[name]).any() for name in trainable_names(learner))
        found.append(after)
    assert_same_bits(([], found[0]), ([], found[1]))


def trainable_names(learner: Learner) -> set[str]:
    """Return the names of the encoder's weights in the state. Its moving statistics are left out."""
    wanted = {id(keras.unwrap_variable(each)) for each in learner.encoder.trainable_variables}
    return {name for name, each in learner.name_state().items() if id(keras.unwrap_variable(each)) in wanted}


@pytest.mark.slow
def test_a_run_that_resumes_in_the_middle_of_a_program_has_the_same_bits() -> None:
    plan, learner, batches, fetch = prepare()
    steps = loop.make_steps(plan, learner, fetch=fetch)
    losses = list(steps(batches, tf.constant(2)).loss.numpy())  # two steps, although the program is made for three
    state = learner.read_arrays()
    plan, learner, batches, fetch = prepare()
    learner.restore(state)
    next(batches), next(batches)
    losses += list(loop.make_steps(plan, learner, fetch=fetch)(batches, tf.constant(4)).loss.numpy())
    assert_same_bits(([np.array(losses)], learner.read_arrays()), (lambda f: ([f[0][0]], f[1]))(train([3, 3], True)))


@pytest.mark.skipif(OPS == "stock", reason="the compiled text of this TensorFlow does not state how often a loop runs")
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw"},
        pytest.param({"optimizer": "lars"}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "lamb"}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "sgd", "precision": "float16"}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "adamw", "micro_batch": "4"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_loop_of_the_program_copies_no_weight_and_no_slot(settings: dict[str, object]) -> None:
    plan, learner, batches, fetch = prepare(**settings)
    compiled = program.compile_loop(loop.make_step(plan, learner), fetch)
    elements = tuple(tf.stack(each) for each in zip(*(next(batches) for _ in range(STEPS))))
    body = find_loop_bodies(read_compiled(compiled, elements))[STEPS]
    weights = {",".join(map(str, variable.shape)) for variable in learner.name_state().values() if variable.shape.rank}
    assert any("convolution" in line for line in body)
    copied = [line for line in list_copies(body) if any(f"[{shape}]" in line for shape in weights)]
    # With micro-batches, the sums of the gradients begin with zeros, and XLA writes them as copies of one array.
    copied = [line for line in copied if "broadcast" not in line]
    assert not copied


def toy(batch: tuple[tf.Tensor, tf.Tensor]) -> Metrics:
    epoch, index = batch
    return Metrics(tf.cast(tf.reduce_sum(index), tf.float32), tf.cast(epoch, tf.float32), tf.cast(index[0], tf.float32))


@pytest.mark.parametrize(("count", "right"), [(STEPS, [STEPS]), (2 * STEPS + 2, [STEPS, STEPS, 1, 1]), (1, [1])])
def test_a_count_is_split_into_programs_of_two_sizes(count: int, right: list[int]) -> None:
    assert program.split_count(count, STEPS) == right
    batches = tf.data.Dataset.range(count + 1).map(lambda place: (place // 2, tf.stack([place, place + 10])))
    iterator = iter(batches)
    found = program.compile_program(toy, STEPS)(iterator, tf.constant(count))
    assert found.loss.numpy().tolist() == [2 * place + 10 for place in range(count)]
    assert found.top1.numpy().tolist() == [place // 2 for place in range(count)]
    assert int(next(iterator)[1][0]) == count  # no batch of the next call was taken


def count_launches(folder: Path) -> int:
    """Return how many times XLA programs were started, according to a recorded trace."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    count = 0
    for path in folder.glob("plugins/profile/*/*.xplane.pb"):
        space = xplane_pb2.XSpace()
        space.ParseFromString(path.read_bytes())
        for plane in space.planes:
            names = {key: value.name for key, value in plane.event_metadata.items()}
            count += sum(
                names[event.metadata_id].startswith("CpuExecutable::Execute")
                for line in plane.lines
                for event in line.events
            )
    return count


@pytest.mark.skipif(OPS == "stock", reason="the traces of this TensorFlow give XLA programs another name")
@pytest.mark.parametrize(("inside", "launches"), [(True, 1), (False, STEPS)])
def test_a_host_call_launches_one_program(tmp_path: Path, inside: bool, launches: int) -> None:
    batches = iter(tf.data.Dataset.range(9).map(lambda place: (place, tf.stack([place, place]))))
    steps = program.compile_program(toy, STEPS) if inside else loop.compile_steps(toy, True)
    steps(batches, tf.constant(STEPS))  # the first call compiles the program
    tf.profiler.experimental.start(str(tmp_path))
    steps(batches, tf.constant(STEPS)).loss.numpy()
    tf.profiler.experimental.stop()
    assert count_launches(tmp_path) == launches
