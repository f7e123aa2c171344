"""Times the image loader of the package lightly. Arguments: FOLDER SIDE IMAGES.

This program runs in a Python environment that has torchvision and lightly. It prints one JSON object with two speeds,
in images per second of processor time on one core: one for decoding an image to SIDE x SIDE pixels, and one for making
two views (randomly changed versions) of an image, of 224 pixels, as SimCLR needs them.
"""

from __future__ import annotations

import json
import sys
import time


def main(folder: str, side: int, images: int) -> None:
    """Time the loader with each of the two transforms, and print the result."""
    import lightly
    import torch
    import torchvision
    from lightly.data import LightlyDataset
    from lightly.transforms import SimCLRTransform
    from torchvision import transforms

    torch.set_num_threads(1)
    stored = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side), transforms.PILToTensor()])

    def measure(transform: object, count: int) -> float:
        data = LightlyDataset(folder, transform=transform)
        loader = iter(torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, num_workers=0))
        next(loader)
        started, done = time.process_time(), 0
        while done < min(count, len(data) - 64):  # counts whole batches, without the first one
            next(loader)
            done += 32
        return done / (time.process_time() - started)

    result = {"decoded": measure(stored, images), "views of 224 pixels": measure(SimCLRTransform(), images // 8)}
    versions = {"lightly": lightly.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    print(json.dumps({"images per second": result, "versions": versions}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
