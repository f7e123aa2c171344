"""Predicts how many bytes a device sends in a training step, and how long the step takes, on 8 to 1024 devices.

The predicted bytes are exact. The predicted seconds follow from three numbers: how many operations a device computes in
a second, and the bandwidth and the latency of its link to the next device. The model assumes that the devices form a
ring. To gather the arrays x of R devices, each device sends R - 1 times the bytes of its own x, in R - 1 hops (one hop
is one message to the next device). To sum x over all devices, each device sends 2 (R - 1) / R times the bytes of x, in
2 (R - 1) hops. The model also assumes that nothing overlaps: a device first computes, then the exchanges follow one
after another. It leaves out the input, the views, the optimizer, and faster links between devices of one host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import utilisation
from lowlevel_simclr.model.batch_norm import FusedBatchNorm

if TYPE_CHECKING:
    import tensorflow as tf

DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024)
WORD = 4  # bytes of a float32, which is the type of all data that devices send
# For each row of z, the devices send three float32 numbers. (z holds the outputs of the projection head, one row for
# each view.) Two of the numbers store the normaliser of the row, which is the sum over all other views in the loss of
# the row (NT-Xent). The third number is the cotangent of the row: the gradient that the backward pass receives for the
# loss of this row.
COLUMNS = 3
# A step "scales" to a number of devices if it spends at least this share of its time on computing. Otherwise the
# devices would mostly wait.
SCALES = 0.5


class WrongModel(AssertionError):
    """The model predicts a number of bytes that differs from what the replicas counted."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a network that determine what a step costs.

    Attributes:
        width: d, the length of a row of z (the outputs of the projection head).
        parameters: the number of trainable weights, which is also the number of entries in all gradients.
        channels: the number of channels of each BatchNorm.
        operations: the number of floating-point operations for one pair (two views of an image), forward and backward.
    """

    width: int
    parameters: int
    channels: tuple[int, ...]
    operations: float


@dataclass(frozen=True)
class Machine:
    """A device and its link to the next device.

    Attributes:
        rate: how many operations the device computes in a second.
        bandwidth: how many bytes the device sends in a second.
        latency: the time of one hop, in seconds.
    """

    rate: float
    bandwidth: float
    latency: float


# According to its data sheet, an NVIDIA A100 computes at most 312 trillion bfloat16 operations a second. A ResNet-50
# reaches about a third of this rate. HDR InfiniBand carries 200 Gbit/s.
ASSUMED = Machine(rate=100e12, bandwidth=25e9, latency=5e-6)
ASSUMED_NAME = "These are an NVIDIA A100 at a third of its bfloat16 peak and a 200 Gbit/s InfiniBand link for each GPU."


def read_sizes(f: tf.keras.Model, g: tf.keras.Model) -> Sizes:
    """Return the sizes of an encoder f and a projection head g."""
    layers = [layer for model in (f, g) for layer in model._flatten_layers(include_self=False)]
    norms = [layer for layer in layers if isinstance(layer, FusedBatchNorm)]
    weights = [variable for model in (f, g) for variable in model.trainable_variables]
    return Sizes(
        width=int(g.output_shape[-1]),
        parameters=sum(_multiply(variable.shape) for variable in weights),
        channels=tuple(int(layer.moving_mean.shape[0]) for layer in norms),
        operations=utilisation.count_pair_operations([f, g]),
    )


def _multiply(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product


def predict_bytes(sizes: Sizes, global_batch: int, devices: int) -> dict[str, float]:
    """Return, for each kind of data, the bytes that a device sends in a step with synchronised BatchNorm."""
    if devices == 1:
        return {}
    rows = 2 * global_batch // devices
    gathered, added = devices - 1, 2 * (devices - 1) / devices
    return {
        "z": gathered * rows * sizes.width * WORD,
        "normalisers and cotangents": gathered * rows * COLUMNS * WORD,
        "BatchNorm": sum(2 * channels * WORD * (gathered + added) for channels in sizes.channels),
        "gradients": added * sizes.parameters * WORD,
        "metrics": added * 2 * WORD,
    }


def refuse_difference(form: str, predicted: dict[str, float], counted: dict[str, int], exchanges: int) -> None:
    """Compare the predicted bytes with the bytes that the replicas of a real step counted.

    Args:
        form: the name of the setup of replicas that was measured, for the message.
        predicted: the predicted bytes, for each kind of data.
        counted: the counted bytes, for each kind of data.
        exchanges: the number of exchanges in the step. In each of them, rounding may change the count by one byte.

    Raises:
        WrongModel: if the bytes of one kind of data differ by more than one byte for each exchange.
    """
    if predicted.keys() != counted.keys() or any(abs(predicted[key] - counted[key]) > exchanges for key in predicted):
        raise WrongModel(
            f"{form}: the replicas sent {counted} bytes, but the scaling model predicts {predicted}. "
            "Correct the model, or the count in Replica.moved."
        )


def predict_seconds(sizes: Sizes, machine: Machine, global_batch: int, devices: int) -> dict[str, float]:
    """Return the seconds of each part of a step and of the whole step, and the share of the step spent computing."""
    own = global_batch / devices
    # The loss takes three matrix products. Let u be the matrix of the normalised rows of z. The forward pass computes u
    # u^T. The backward pass computes u u^T again, and multiplies a matrix of weights by u. Each product is split over
    # the devices by rows: a device computes only its own rows.
    loss = 3 * 2 * (2 * own) * (2 * global_batch) * sizes.width
    sent = predict_bytes(sizes, global_batch, devices)
    hops = {"z": 1, "normalisers and cotangents": 1, "BatchNorm": 3 * len(sizes.channels), "gradients": 2, "metrics": 2}
    parts = {"encoder": own * sizes.operations / machine.rate, "loss": loss / machine.rate}
    parts |= {
        what: size / machine.bandwidth + hops[what] * (devices - 1) * machine.latency for what, size in sent.items()
    }
    compute = parts["encoder"] + parts["loss"]
    return {**parts, "step": sum(parts.values()), "share": compute / sum(parts.values())}


def predict_scaling(sizes: Sizes, machine: Machine, global_batch: int, per_device: int) -> dict[str, Any]:
    """Predict a step for each number of devices, once with a batch of fixed size and once with a batch that grows.

    Args:
        sizes: the sizes of the network.
        machine: one device and its link. All devices are alike.
        global_batch: pairs in the batch of fixed size, which all devices share.
        per_device: pairs for each device in the batch that grows.
    """
    batches = {"shared": lambda _: global_batch, "growing": lambda devices: per_device * devices}
    found: dict[str, Any] = {"sizes": asdict(sizes), "machine": asdict(machine)}
    for name, batch in batches.items():
        rows = [
            {
                "devices": devices,
                "batch": batch(devices),
                "bytes": predict_bytes(sizes, batch(devices), devices),
                "seconds": predict_seconds(sizes, machine, batch(devices), devices),
            }
            for devices in DEVICES
            if batch(devices) % devices == 0
        ]
        scaling = [row["devices"] for row in rows if row["seconds"]["share"] >= SCALES]
        found[name] = {"rows": rows, "scales_to": max(scaling, default=0)}
    return found


def format_measured(result: dict[str, Any]) -> str:
    """Return a Markdown table with one line for each measured setup of replicas."""
    carried = list(result["forms"]["2 replicas"]["moved"])
    lines = [
        f"| setup | median ms a step | shortest ms a step | {' | '.join(f'bytes sent: {what}' for what in carried)} |"
    ]
    lines.append("|---" * (3 + len(carried)) + "|")
    for name, form in result["forms"].items():
        sent = " | ".join(f"{form['moved'].get(what, 0):,}" for what in carried)
        lines.append(f"| {name} | {1e3 * form['seconds']:.1f} | {1e3 * form['best_seconds']:.1f} | {sent} |")
    config, two = result["config"], result["forms"]["2 processes"]
    lines += [
        "",
        f"{config['encoder']}, {config['image_size']} pixels, global batch {config['batch_size']}, float32; "
        f"{result['device']}, TensorFlow {result['versions']['tensorflow']}. The columns of bytes give what one "
        f"replica sends in one step. In the setup with two processes, both replicas together counted "
        f"{2 * sum(two['moved'].values()):,} bytes a step. The loopback device between the processes carried "
        f"{two['loopback_bytes']:,.0f} bytes a step.",
    ]
    return "\n".join(lines)


def format_predicted(result: dict[str, Any]) -> str:
    """Return a Markdown table with one line for each number of devices.

    The first lines are for one batch that all devices share, the others for a batch that grows with the devices.
    """
    parts = ("encoder", "loss", "z", "normalisers and cotangents", "BatchNorm", "gradients")
    lines = [
        (
            "| devices | global batch | MB sent by each device | computing the encoder, ms | computing the loss, ms | "
            f"{' | '.join(f'exchanging {part}, ms' for part in parts[2:])} | whole step, ms | share spent computing |"
        )
    ]
    lines.append("|---" * (len(parts) + 5) + "|")
    model = result["scaling"]
    for name in ("shared", "growing"):
        for row in model[name]["rows"]:
            spent = " | ".join(f"{1e3 * row['seconds'][part]:.2f}" for part in (*parts, "step"))
            sent = sum(row["bytes"].values()) / 1e6
            lines.append(
                f"| {row['devices']} | {row['batch']} | {sent:.1f} | {spent} | {row['seconds']['share']:.0%} |"
            )
    machine, sizes = model["machine"], model["sizes"]
    lines += [
        "",
        "In the first rows all devices share one batch, and in the other rows the batch grows with the devices. The "
        f"network has {sizes['parameters'] / 1e6:.1f} million weights, {len(sizes['channels'])} BatchNorms and "
        f"{sizes['operations'] / 1e9:.3g} billion operations a pair. Every device computes "
        f"{machine['rate'] / 1e12:.4g} trillion operations a second. A link carries "
        f"{machine['bandwidth'] / 1e9:.4g} GB/s and needs {1e6 * machine['latency']:.4g} microseconds a message. "
        f"{ASSUMED_NAME if Machine(**machine) == ASSUMED else 'These are the numbers of the flags.'} "
        "Computing and exchanging do not overlap. "
        f"If all devices share one batch, {_format_reach(model['shared'])} "
        f"If the batch grows with the devices, {_format_reach(model['growing'])}",
    ]
    return "\n".join(lines)


def _format_reach(found: dict[str, Any]) -> str:
    """Return the second half of a sentence, which says up to how many devices a step scales."""
    if found["scales_to"]:
        return f"compute is at least {SCALES:.0%} of a step on up to {found['scales_to']} devices."
    return f"compute is less than {SCALES:.0%} of a step already on {DEVICES[0]} devices."
