"""Tests that the program `embed` needs little memory, even for 200,000 images.

It computes one row of numbers for each image, and writes the rows in parts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.other_process import output_of

COUNT, WIDTH = 200_000, 512
ROWS = 4 * COUNT * WIDTH  # bytes of all rows
PROGRAM = f"""
import resource
from pathlib import Path

import numpy as np

from lowlevel_simclr.data.encoded import Drawn
from lowlevel_simclr.data.image_file import Shape
from lowlevel_simclr.evaluation.embedding.given import Given
from lowlevel_simclr.evaluation.embedding.job import Embedding, Job, fill_parts
from lowlevel_simclr.evaluation.embedding.parts import open_parts
from lowlevel_simclr.evaluation.embedding.reading import choose_decoder
from lowlevel_simclr.evaluation.embedding.similar import find_nearest
from lowlevel_simclr.evaluation.embedding.tables import refuse_unwritable, write_table

out = Path("OUT")
refuse_unwritable(out)
images = np.random.default_rng(0).integers(0, 256, ({COUNT}, 8, 8, 3), np.uint8)
weights = np.random.default_rng(1).normal(0, 1, (8 * 8 * 3, {WIDTH})).astype(np.float32)
job = Job(
    Given(Drawn("images", images)),
    choose_decoder(Shape(8, 8, 3), None),
    lambda batch: batch.reshape(len(batch), -1) @ weights,
    "h",
    {{}},
)


def measure_peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


before = measure_peak()
with open_parts(out, job.made_of, {COUNT}) as parts:
    fill_parts(job, parts)
    embedding = Embedding(job, parts)
    write_table(out, embedding.make_table())
    find_nearest(np.ones((3, {WIDTH}), np.float32), embedding.read_rows(), 5)
    parts.remove()
print(measure_peak() - before, len(embedding), out.stat().st_size)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h.npz", "h.parquet"])
def test_the_memory_does_not_grow_with_the_images(tmp_path: Path, name: str) -> None:
    """Test 200,000 images, whose rows take 410 MB. The memory may grow by less than 120 MB.

    At any time, the program must hold only a few thousand rows, some decoded images, and the places of all images in
    their files.
    """
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    said = output_of(PROGRAM.replace("OUT", f"{tmp_path}/{name}"))
    grown, count, size = map(int, said.split()[-3:])
    assert count == COUNT and size > ROWS and grown < 120e6, f"{grown / 1e6:.0f} MB"
