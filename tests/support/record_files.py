"""Writes small data sets of numbered pictures for tests: TFRecord files, Parquet files, and TensorFlow Datasets."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.support.image_files import draw_picture

CLASSES = ("cat", "dog")
_CODES = {bytes: "bytes_list", int: "int64_list", float: "float_list"}


def encode_picture(number: int, side: int = 16) -> bytes:
    """Return the content of a PNG file with a random picture whose first pixel has the value `number`."""
    file = io.BytesIO()
    draw_picture(number, side, side).save(file, "PNG")
    return file.getvalue()


def make_example(**features: Any) -> bytes:
    """Return a TFRecord example with these features. A double underscore in a name becomes a slash."""
    made = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        kind = _CODES[type(values[0])] if values else "int64_list"
        getattr(made.features.feature[name.replace("__", "/")], kind).value.extend(values)
    return made.SerializeToString()


def write_records(path: Path, records: Sequence[bytes]) -> Path:
    """Write a TFRecord file, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def write_pictures_as_records(path: Path, numbers: Sequence[int]) -> Path:
    """Write a TFRecord file of pictures. Their labels are 3 (cat) for even numbers and 7 (dog) for odd ones."""
    records = [
        make_example(
            image__encoded=encode_picture(number),
            image__class__label=(3, 7)[number % 2],
            image__class__text=CLASSES[number % 2].encode(),
        )
        for number in numbers
    ]
    return write_records(path, records)


def cut_record(path: Path, number: int) -> None:
    """Cut a TFRecord file off in the middle of record `number`, counted from 0."""
    content = path.read_bytes()
    start = 0
    for _ in range(number):
        start += 16 + struct.unpack_from("<Q", content, start)[0]
    path.write_bytes(content[: start + 20])


def write_parquet(path: Path, numbers: Sequence[int], names: Sequence[str] | None = CLASSES, **columns: Any) -> Path:
    """Write a Parquet file as Hugging Face does, with six pictures in each row group. Return its path."""
    import pyarrow
    import pyarrow.parquet

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = [{"bytes": encode_picture(number), "path": f"{number}.png"} for number in numbers]
    columns = {
        "image": pyarrow.array(images, kind),
        "label": pyarrow.array([number % 2 for number in numbers], pyarrow.int64()),
        **columns,
    }
    features = {"image": {"_type": "Image"}, "label": {"names": list(names or ()), "_type": "ClassLabel"}}
    info = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table.replace_schema_metadata(info) if names else table, path, row_group_size=6)
    return path


def write_tfds(folder: Path, version: str = "1.0.0", name: str = "pets", **splits: Sequence[int]) -> Path:
    """Write a data set in the format of TensorFlow Datasets, without the builder's code. Return `folder`."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(16, 16, 3)),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
    )
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version(version), data_dir=str(folder / name / version), module_name="none"
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features, supervised_keys=("image", "label"))
    (folder / name / version).mkdir(parents=True)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=8)
    writer.initialize_splits(list(splits))
    for split, numbers in splits.items():
        for number in numbers:
            example = {"id": str(number), "image": np.asarray(draw_picture(number)), "label": number % 2}
            writer.add_examples({split: [example]})
    writer.close_all()
    return folder
