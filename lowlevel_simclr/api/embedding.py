"""The work of `python -m lowlevel_simclr.embed`. It computes one row of numbers (h or z) for each image.

The rows are written into a file. If the user asks for it, the program also finds similar images.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from lowlevel_simclr.api.networks import list_own_images, make_run_embedder
from lowlevel_simclr.api.similar_images import print_neighbours, read_photographs, write_duplicates
from lowlevel_simclr.api.stored import read_run_config
from lowlevel_simclr.config.names import format_count, show_name
from lowlevel_simclr.data.image_file import READER
from lowlevel_simclr.evaluation.embedding.encoder import Embedder, read_bounds, read_stored_shape
from lowlevel_simclr.evaluation.embedding.given import EmbedError, Given, find_given, hash_given
from lowlevel_simclr.evaluation.embedding.job import Embedding, Job, NothingRead, fill_parts
from lowlevel_simclr.evaluation.embedding.parts import PART, PartFolder, open_parts
from lowlevel_simclr.evaluation.embedding.reading import BATCH_SIZE, choose_decoder
from lowlevel_simclr.evaluation.embedding.tables import refuse_unwritable, write_table

KINDS = {"h": "representation (h)", "z": "projection (z)"}


class EmbedOptions(NamedTuple):
    """What to embed, and what to do with the rows.

    Attributes:
        run: the run folder.
        images: image files, folders of image files, or data sets.
        out: the file to write; its ending chooses the format.
        output: "h" for the representation, "z" for the projection.
        neighbours: image files, folders of image files, or data sets. The program looks for the nearest neighbours of
            these images among `images`.
        duplicates: pairs of images with at least this cosine similarity are near-duplicates, in (0, 1]. None: the
            program does not look for near-duplicates.
    """

    run: Path
    images: Sequence[Path]
    out: Path
    output: str = "h"
    neighbours: Sequence[Path] = ()
    duplicates: float | None = None


def embed_into_file(options: EmbedOptions) -> None:
    """Write the rows (h or z) of images into a file, and print what was done.

    The rows are computed in parts. If the program is stopped, the same command continues after the last whole part.

    Raises:
        RunError: if the folder holds no run or no checkpoint.
        EmbedError: if a path is missing, no image can be read, or `out` cannot be written.
        DataError: if a data set has no images.
    """
    read_run_config(options.run)  # raises an error if the folder holds no run, before the search for images
    refuse_unwritable(options.out)
    own = list_own_images(options.run)
    given = find_given(options.images, own)
    wanted = find_given(options.neighbours, own) if options.neighbours else None
    job = _make_job(options, given)
    for note in given.notes:
        print(f"warning: {show_name(note)}", file=sys.stderr)
    photographs = read_photographs(job, wanted) if wanted else None
    count = len(given.source)
    with _explain_write_errors(options.out), open_parts(options.out, job.made_of, count) as parts:
        fill_parts(job, parts)
        embedding = _open_embedding(job, parts)
        write_table(options.out, embedding.make_table())
        _print_written(options, embedding)
        if photographs:
            print_neighbours(embedding, photographs, options.out)
        if options.duplicates is not None:
            write_duplicates(embedding, options.duplicates, options.out)
        parts.remove()


def _open_embedding(job: Job, parts: PartFolder) -> Embedding:
    """Return the embedding from its complete parts. If no image could be read, remove the parts and raise an error."""
    try:
        return Embedding(job, parts)
    except NothingRead:
        parts.remove()
        raise


def _make_job(options: EmbedOptions, given: Given) -> Job:
    shape, bounds = read_stored_shape(options.run), read_bounds(options.run)
    embedder = make_run_embedder(options.run, shape.channels, options.output)
    made_of = _describe_job(options, given, embedder, [shape, bounds])
    return Job(given, choose_decoder(shape, bounds), embedder.embed, options.output, made_of)


def _describe_job(
    options: EmbedOptions, given: Given, embedder: Embedder, form: Sequence[Sequence[int] | None]
) -> dict[str, Any]:
    """Return everything on which the stored parts depend. If something in it changes, old parts are not used."""
    model = read_run_config(options.run).model
    return {
        "images": hash_given(given),
        "weights": embedder.weights,
        "scaling": [model.input_mean, model.input_std],
        "output": options.output,
        "form": form,
        "batches": [PART, BATCH_SIZE],
        "versions": [READER, tf.__version__],
    }


def _print_written(options: EmbedOptions, embedding: Embedding) -> None:
    bad = [*embedding.job.given.left_out, *embedding.bad]
    for path, reason in bad:
        print(f"Skipped {show_name(path)}: {show_name(reason)}", file=sys.stderr)
    numbers = f"{format_count(len(embedding), 'image')}, {embedding.width} numbers each"
    print(f"Wrote the {KINDS[options.output]} of {numbers}, to {show_name(options.out)}.")
    if bad:
        print(f"{format_count(len(bad), 'image')} could not be read, see above.")


@contextlib.contextmanager
def _explain_write_errors(out: Path) -> Iterator[None]:
    """Turn an OSError inside a `with` block into an EmbedError that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free some disk space, then run the same command again." if full else "Use another --out."
        raise EmbedError(f"Cannot write {out}: {error.strerror or error}. {remedy}") from error
