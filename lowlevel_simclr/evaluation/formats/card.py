"""Writes the model card of an export: a README.md that begins with metadata for Hugging Face (the front matter)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lowlevel_simclr
from lowlevel_simclr.config.choices import PROTOCOLS
from lowlevel_simclr.evaluation.formats.form import Format
from lowlevel_simclr.evaluation.formats.network import Network
from lowlevel_simclr.evaluation.formats.parity import Parity
from lowlevel_simclr.evaluation.summary import format_table
from lowlevel_simclr.run.results import read_config, read_data, read_evaluation, read_results

KNOWN_DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}  # data sets with a page at Hugging Face
METRICS = {"knn": "20-NN on the frozen representation", "linear": "logistic regression on the frozen representation"}
SHOWN = ("batch_size", "epochs", "steps", "optimizer", "learning_rate", "learning_rate_scaling", "weight_decay",
         "temperature", "image_size", "stem", "projection_widths", "precision", "seed")  # fmt: skip


def make_card(folder: Path, network: Network, form: Format, parity: Parity, weights: str, loss: str) -> str:
    """Return the card as Markdown.

    Args:
        folder: the run folder.
        network: what was exported.
        form: the format.
        parity: the comparison of the exported file with the networks of the run.
        weights: the number type of the weights, such as "float16".
        loss: a sentence about the accuracy that is lost with float16 or int8 weights, or "".

    Raises:
        RunError: if a file of the run is damaged.
    """
    settings = _flatten(read_config(folder))
    evaluation, environment = read_evaluation(folder), read_results(folder / "environment.json")
    parts = [
        _write_front_matter(settings, evaluation, form, network),
        f"# {network.encoder.name} trained by SimCLR on {settings['dataset']}",
        _describe_outputs(network),
        "## How to load it",
        f"```python\n{_fill_example(form, network)}```",
        "## Is it the encoder of the run?",
        f"{form.title}, weights in {weights}. The file was opened in a process without the package that trained it, "
        f"and compared with the encoder of the run: {parity.describe()}. {loss}".strip(),
        "## Accuracy",
        _describe_accuracy(evaluation),
        *([network.unfinished] if network.unfinished else []),
        "## Data and recipe",
        _describe_recipe(settings, read_data(folder) or {}),
        "## Versions",
        _describe_versions(environment),
        "## Licence",
        "The card names no licence, because the program does not know it. Whoever publishes the weights chooses it, "
        "within what the licence of the data allows. Then change `license` at the top.",
        "## Limits",
        "The encoder was trained only on the images of its data set, without labels. Its representation keeps "
        "only what the random changes of the training images left intact, so colours and positions may be lost. "
        "It was not tested for bias.",
    ]
    return "\n\n".join(parts) + "\n"


def _flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of all sections of config.json in one dict."""
    sections = [section for section in config.values() if isinstance(section, dict)]
    return {name: value for section in sections for name, value in section.items()}


def _write_front_matter(
    settings: Mapping[str, Any], evaluation: Mapping[str, Any], form: Format, network: Network
) -> str:
    """Return the front matter: YAML between two lines of dashes. Strings are written as JSON, which is valid YAML."""
    lines = [
        f"library_name: {form.library}",
        "pipeline_tag: image-feature-extraction",
        "license: unknown",
        f"tags: {json.dumps(['simclr', 'self-supervised-learning', 'contrastive-learning', network.encoder.name])}",
    ]
    dataset = settings["dataset"]
    if dataset in KNOWN_DATASETS:
        lines += [f"datasets: [{dataset}]", *_list_metrics(dataset, evaluation, network.encoder.name)]
    return "\n".join(["---", *lines, "---"])


def _list_metrics(dataset: str, evaluation: Mapping[str, Any], encoder: str) -> list[str]:
    """Return the lines of Hugging Face's `model-index`: each accuracy, and the classifier that reached it."""
    found = {"knn": evaluation.get("knn", {}).get("20"), "linear": evaluation.get("linear")}
    metrics = [
        f"      - {{type: accuracy, value: {value:.4f}, name: {json.dumps(METRICS[name])}}}"
        for name, value in found.items()
        if value is not None
    ]
    if not metrics:
        return []
    return [
        "model-index:",
        f"- name: {encoder}",
        "  results:",
        "  - task: {type: image-classification}",
        f"    dataset: {{type: {dataset}, name: {KNOWN_DATASETS[dataset]}, split: test}}",
        "    metrics:",
        *metrics,
    ]


def _describe_outputs(network: Network) -> str:
    """Return sentences that describe the model's input and output."""
    size, channels = network.encoder.input_shape[1], network.encoder.input_shape[-1]
    if network.preprocessing:
        side = f"{network.image_size} x {network.image_size} pixels" if network.image_size else "any size"
        taken = f"It takes images of {side}, uint8, with {channels} channels. It resizes and scales them itself."
    else:
        mean, std = network.scaling
        taken = (
            f"It takes float32 views of {size} x {size} pixels, with {channels} channels. Scale pixels to [0, 1] "
            f"first, subtract {list(mean or [0])} and divide by {list(std or [1])}."
        )
    z = "" if network.head is None else f", and the projection z ({network.head.output_shape[-1]} numbers)"
    return f"{taken} It returns the representation h ({network.encoder.output_shape[-1]} numbers){z}."


def _fill_example(form: Format, network: Network) -> str:
    """Return the format's example code, with an input of the right shape and type."""
    signature = network.signature
    size, channels = signature.shape[1] or 40, signature.shape[3]
    given = f"np.zeros((2, {size}, {size}, {channels}), np.{signature.dtype.name})"
    return form.example.format(given=given, name=network.input_name)


def _describe_accuracy(evaluation: Mapping[str, Any]) -> str:
    """Return the table of results as the run printed it, or a sentence if there are no results."""
    if not any(name.startswith(PROTOCOLS) for name in evaluation):
        return "The run was not evaluated with labels."
    return f"```\n{format_table(evaluation)}\n```\n\nThe test transform: {evaluation.get('transform', 'not recorded')}."


def _describe_recipe(settings: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return the data and the settings as a Markdown list."""
    counts = data.get("counts") or {}
    images = ", ".join(f"{name}: {count}" for name, count in counts.items() if isinstance(count, int))
    lines = [f"dataset: {settings['dataset']}" + (f" ({images} images)" if images else "")]
    lines += [f"{name}: {settings[name]}" for name in SHOWN if settings.get(name) is not None]
    return "\n".join(f"- {line}" for line in lines)


def _describe_versions(environment: Mapping[str, Any]) -> str:
    """Return the versions of the program that trained the run, and the version that exported it."""
    names = ("lowlevel_simclr", "git", "tensorflow", "keras", "numpy", "python")
    trained = ", ".join(f"{name} {environment[name]}" for name in names if environment.get(name))
    return f"Trained with {trained or 'unknown versions'}. Exported with lowlevel_simclr {lowlevel_simclr.__version__}."
