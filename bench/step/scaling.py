"""Foretells a training step on 8 to 1024 devices: bytes exactly, seconds by a rate, a bandwidth and a latency.

Collectives are rings: gathering x from R devices, each sends R - 1 times its x in as many hops; a sum sends
2 (R - 1) / R times x in 2 (R - 1) hops. Nothing overlaps: compute, then every exchange after the other. Not in it:
input, views, the optimizer, hosts of several devices with a faster link among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import utilisation
from lowlevel_simclr.model.batch_norm import FusedBatchNorm

DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024)
WORD = 4  # bytes of a number on its way: float32
COLUMNS = 3  # of a row: its normaliser, in two numbers, and its cotangent
SCALES = 0.5  # of the step is compute: below it, more devices mostly wait


class WrongModel(AssertionError):
    """The model's bytes are not those that were counted."""


@dataclass(frozen=True)
class Sizes:
    """What the network decides. width: d of z. parameters: numbers of all gradients. channels: of each BatchNorm.

    operations: of a pair's forward and backward pass.
    """

    width: int
    parameters: int
    channels: tuple[int, ...]
    operations: float


@dataclass(frozen=True)
class Machine:
    """rate: operations a second of a device. bandwidth: bytes a second that it sends. latency: seconds of a hop."""

    rate: float
    bandwidth: float
    latency: float


def sizes_of(f: Any, g: Any) -> Sizes:
    """Those of an encoder and a projection head."""
    layers = [layer for model in (f, g) for layer in model._flatten_layers(include_self=False)]
    norms = [layer for layer in layers if isinstance(layer, FusedBatchNorm)]
    weights = [variable for model in (f, g) for variable in model.trainable_variables]
    return Sizes(
        width=int(g.output_shape[-1]),
        parameters=sum(_count(variable.shape) for variable in weights),
        channels=tuple(int(layer.moving_mean.shape[0]) for layer in norms),
        operations=utilisation.operations_of_pair([f, g]),
    )


def _count(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product


def bytes_moved(sizes: Sizes, global_batch: int, devices: int) -> dict[str, float]:
    """Bytes that a device sends in a step, by what they carry; BatchNorm synchronised, one micro-batch."""
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
    """Holds the model against a step.

    Raises:
        WrongModel: by what they carry the bytes differ, by more than the last byte of each exchange.
    """
    if predicted.keys() != counted.keys() or any(abs(predicted[key] - counted[key]) > exchanges for key in predicted):
        raise WrongModel(f"{form} moves {counted} bytes and the model says {predicted}: one of them is wrong")


def seconds_of_step(sizes: Sizes, machine: Machine, global_batch: int, devices: int) -> dict[str, float]:
    """Seconds of a step, by part, and the share of it that is compute."""
    own = global_batch / devices
    # Own rows against all columns: products u u^T forward and again backward, then its weights times u.
    loss = 3 * 2 * (2 * own) * (2 * global_batch) * sizes.width
    sent = bytes_moved(sizes, global_batch, devices)
    hops = {"z": 1, "normalisers and cotangents": 1, "BatchNorm": 3 * len(sizes.channels), "gradients": 2, "metrics": 2}
    parts = {"encoder": own * sizes.operations / machine.rate, "loss": loss / machine.rate}
    parts |= {
        what: size / machine.bandwidth + hops[what] * (devices - 1) * machine.latency for what, size in sent.items()
    }
    compute = parts["encoder"] + parts["loss"]
    return {**parts, "step": sum(parts.values()), "share": compute / sum(parts.values())}


def foretell(sizes: Sizes, machine: Machine, global_batch: int, per_device: int) -> dict[str, Any]:
    """A row for each number of devices: of a batch that is shared out, and of one that grows with them."""
    batches = {"shared": lambda _: global_batch, "growing": lambda devices: per_device * devices}
    found: dict[str, Any] = {"sizes": asdict(sizes), "machine": asdict(machine)}
    for name, batch in batches.items():
        rows = [
            {
                "devices": devices,
                "batch": batch(devices),
                "bytes": bytes_moved(sizes, batch(devices), devices),
                "seconds": seconds_of_step(sizes, machine, batch(devices), devices),
            }
            for devices in DEVICES
            if batch(devices) % devices == 0
        ]
        scaling = [row["devices"] for row in rows if row["seconds"]["share"] >= SCALES]
        found[name] = {"rows": rows, "scales_to": max(scaling, default=0)}
    return found


def measured_table(result: dict[str, Any]) -> str:
    """Markdown: a line for each form that was measured."""
    carried = list(result["forms"]["2 replicas"]["moved"])
    lines = [f"| | ms a step, median | best | {' | '.join(f'{what}, bytes' for what in carried)} |"]
    lines.append("|---" * (3 + len(carried)) + "|")
    for name, form in result["forms"].items():
        sent = " | ".join(f"{form['moved'].get(what, 0):,}" for what in carried)
        lines.append(f"| {name} | {1e3 * form['seconds']:.1f} | {1e3 * form['best_seconds']:.1f} | {sent} |")
    config, two = result["config"], result["forms"]["2 processes"]
    lines += [
        "",
        f"{config['encoder']}, {config['image_size']} pixels, global batch {config['batch_size']}, float32; "
        f"{result['device']}, TensorFlow {result['versions']['tensorflow']}. Bytes are those that each replica sends; "
        f"the two processes count {2 * sum(two['moved'].values()):,} together, the loopback device carried "
        f"{two['loopback_bytes']:,.0f} a step.",
    ]
    return "\n".join(lines)


def scaling_table(result: dict[str, Any]) -> str:
    """Markdown: a line for each number of devices, of the batch that is shared out and of the one that grows."""
    parts = ("encoder", "loss", "z", "normalisers and cotangents", "BatchNorm", "gradients")
    lines = [f"| devices | batch | MB sent | {', ms | '.join(parts)}, ms | step, ms | compute |"]
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
        f"{sizes['parameters'] / 1e6:.1f} million weights, {len(sizes['channels'])} BatchNorms, "
        f"{sizes['operations'] / 1e9:.3g} billion operations a pair; devices of {machine['rate'] / 1e12:.4g} trillion "
        f"operations a second, {machine['bandwidth'] / 1e9:.4g} GB/s and {1e6 * machine['latency']:.4g} microseconds a "
        f"hop; nothing overlaps. Compute is at least {SCALES:.0%} of a step: where the batch is "
        f"shared out, {_up_to(model['shared'])}; where it grows, {_up_to(model['growing'])}.",
    ]
    return "\n".join(lines)


def _up_to(found: dict[str, Any]) -> str:
    return f"up to {found['scales_to']} devices" if found["scales_to"] else f"on none of {DEVICES[0]} or more devices"
