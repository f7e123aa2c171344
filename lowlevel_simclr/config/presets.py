"""Recipes by name: those of this project, of the notes that it began with, and published ones.

To add one: write a function that returns `replace(Config(), preset=NAME, ...)` with a docstring that says what it
reproduces, the expected result and the cost, and name it in `PRESETS`.
"""

from __future__ import annotations

from collections.abc import Callable

from lowlevel_simclr.config.fields import describe_unknown
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config, ConfigError, Range

LARGEST_JITTER = 2.5  # hue moves by 0.2 strength, and half a turn either way is every hue there is


def scale_jitter(strength: float) -> dict[str, Range]:
    """Ranges of the four colour operations at a jitter strength s (SimCLR, appendix A).

    Args:
        strength: s in [0, 2.5]; the paper has 1 for ImageNet and 0.5 for CIFAR-10.

    Returns:
        brightness, contrast and saturation in [max(0, 1 - 0.8 s), 1 + 0.8 s], hue in [-0.2 s, 0.2 s] turns.

    Raises:
        ConfigError: for a strength outside [0, 2.5].
    """
    if not 0 <= strength <= LARGEST_JITTER:
        raise ConfigError(f"--jitter-strength is {strength}: give at least 0 and at most {LARGEST_JITTER}")
    # Rounded, because 1 - 0.8 is 0.19999999999999996, and the ranges are shown and compared.
    factor = (round(max(0.0, 1 - 0.8 * strength), 9), round(1 + 0.8 * strength, 9))
    turn = round(0.2 * strength, 9)
    return {"brightness": factor, "contrast": factor, "saturation": factor, "hue": (-turn, turn)}


def shapes() -> Config:
    """The embedded shapes: ten drawn classes, 32x32 pixels, nothing to download.

    Shows a first user, in one command, an encoder that has learned without labels.
    Expected: k-NN of at least 0.93 on held-out shapes, where pixels and the untrained encoder stay below
    0.60.
    Cost: 546 steps of 128, less than five minutes on two CPU cores, evaluation and plots included.
    """
    return replace(
        Config(),
        preset="shapes",
        dataset="shapes",
        image_size=20,  # 0.4 times the work of 32, and the shapes are as plain
        batch_size=128,
        epochs=14,
        knn_every=4,
        learning_rate=6e-3,
        temperature=0.1,
        crop_area=(0.3, 1.0),
        **scale_jitter(0.5),
    )


def cifar10_resnet20() -> Config:
    """CIFAR-10 with a 20-layer ResNet and the paper's views for CIFAR-10.

    SimCLR, appendix B.9, on the model of the shapes: crop area 0.08 to 1, jitter strength 0.5, no blur; views of 20
    pixels, 0.4 times the work of 32. Ten epochs: a first look at real images, not a result to compare.
    Expected: k-NN on the test set that rises over the run and ends above the pixels and the untrained encoder.
    Cost: 1,950 steps of 256, some twenty-five minutes on two CPU cores.
    """
    return replace(
        Config(),
        preset="cifar10-resnet20",
        dataset="cifar10",
        image_size=20,
        epochs=10,
        learning_rate=4e-3,
        **scale_jitter(0.5),
    )


def cifar10_resnet50() -> Config:
    """CIFAR-10 with ResNet-50: the seed notes' model, on the train split and with the paper's views.

    SimCLR, appendix B.9 (crop area 0.08 to 1, jitter strength 0.5, no blur), with the head of the notes, 256-128, and a
    run that is short: 20 epochs of AdamW. `--stem imagenet` makes each step 15 times cheaper and h poorer.
    Expected: k-NN on the test set that rises over the run and ends above the pixels and the untrained encoder. Not the
    94 % of the paper, which are 1000 epochs (`simclr-b9`).
    Cost: 3,900 steps of 256. With the ImageNet stem about five minutes an epoch on two CPU cores; with the CIFAR stem
    of this preset, over two hours: for a GPU.
    """
    return replace(
        Config(),
        preset="cifar10-resnet50",
        dataset="cifar10",
        encoder="resnet50",
        epochs=20,
        learning_rate=1e-3,
        **scale_jitter(0.5),
    )


def cifar10_resnet18() -> Config:
    """CIFAR-10 with ResNet-18 for 100 epochs: the field's standard encoder at a price that one GPU pays in minutes.

    The recipe of `kobak` with twice its learning rate, as its author has it for 100 epochs.
    Expected: k-NN 83 %, linear 86 %: what that author reports (83.2 and 85.6), not yet measured here.
    Cost: 9,700 steps of 512; 20 minutes on an A100 for that author. Not for a CPU.
    """
    return replace(kobak(), preset="cifar10-resnet18", epochs=100, learning_rate=0.06)


def day29() -> Config:
    """The seed notes of this project as they were written, their slips mended (README, "From the notes to the code").

    CIFAR-10, train and test images together; pixels in [-1, 1]; a random 28x28 crop of the 32x32 image, resized to 32;
    flip; brightness by adding up to 0.5 on the [-1, 1] scale, contrast by 0.1 to 0.9, no clipping; Keras's ResNet-50
    with its ImageNet weights; head 256-ReLU-128; tau 0.5. Mended: the results of flip and contrast were dropped, z was
    normalised over the wrong axis, and the loss compared N x N in one direction. Ours, because nothing is handed down:
    AdamW 1e-3, batches of 256, 5 epochs.
    One more mend: the weights were trained on blue, green, red, and the notes gave them red, green, blue; here each
    colour meets its own weights. Their scale of pixels, [-1, 1], stays the notes'.
    Expected: k-NN below that of the untrained encoder, though the test images are trained on, which every table says:
    its views keep an image's colours, which tell one from another (README, with the figures).
    Cost: 1,170 steps of 256, about six minutes an epoch on two CPU cores; downloads 95 MB of weights, which
    `--weights random` does without.
    """
    return replace(
        Config(),
        preset="day29",
        dataset="cifar10",
        train_on="all",
        encoder="resnet50",
        stem="imagenet",
        weights="imagenet",
        input_mean=(0.5, 0.5, 0.5),
        input_std=(0.5, 0.5, 0.5),
        epochs=5,
        learning_rate=1e-3,
        temperature=0.5,
        crop_area=(28**2 / 32**2, 28**2 / 32**2),
        crop_aspect=(1.0, 1.0),
        jitter_probability=1.0,
        brightness=(1.0, 1.0),
        brightness_shift=(-0.25, 0.25),  # +-0.5 where pixels are in [-1, 1]
        contrast=(0.1, 0.9),
        saturation=(1.0, 1.0),
        hue=(0.0, 0.0),
        clip=False,
        grey_probability=0.0,
    )


def simclr_b9() -> Config:
    """The paper's own CIFAR-10 run: SimCLR, appendix B.9, ResNet-50, batch 1024, 1000 epochs.

    LARS with linear scaling (0.5, 1.0 and 1.5 were tried; 1.0 here), decay 1e-6, ten epochs of warm-up, tau 0.5, jitter
    strength 0.5, no blur, head 2048-128. The loss is the mean over the 2N views. Not said there and so ours: a head
    without BatchNorm, He's initial weights.
    Expected: linear 94.0 %, the best of the paper's sweep; the best that was reproduced in public is 93.7 %.
    Cost: 48,000 steps of 1024, ten hours on an A100 at the 37 s an epoch that others report.
    """
    return replace(
        Config(),
        preset="simclr-b9",
        dataset="cifar10",
        encoder="resnet50",
        projection_widths=(2048, 128),
        optimizer="lars",
        learning_rate=1.0,
        learning_rate_scaling="linear",
        weight_decay=1e-6,
        warmup_epochs=10,
        temperature=0.5,
        batch_size=1024,
        epochs=1000,
        **scale_jitter(0.5),
    )


def google_readme() -> Config:
    """The command for CIFAR-10 in the README of google-research/simclr: ResNet-18, batch 512, 1000 epochs.

    LARS 1.0 with linear scaling, decay 1e-4, ten epochs of warm-up, tau 0.5, jitter strength 0.5, no blur; a head of
    three layers, 512-512-128, BatchNorm behind each, the last without a shift; the loss is twice the paper's mean.
    Not reproduced: its initial weights (truncated normal of variance 1/fan-in; He's here), and its resize of a crop
    (bicubic, not antialiased; bilinear and antialiased here).
    Expected: linear about 91 %, says that README.
    Cost: 97,000 steps of 512; under ten hours on a P100 for its users.
    """
    return replace(
        Config(),
        preset="google-readme",
        dataset="cifar10",
        encoder="resnet18",
        projection_widths=(512, 512, 128),
        projection_batch_norm="google",
        loss_reduction="google",
        optimizer="lars",
        learning_rate=1.0,
        learning_rate_scaling="linear",
        weight_decay=1e-4,
        warmup_epochs=10,
        temperature=0.5,
        batch_size=512,
        epochs=1000,
        **scale_jitter(0.5),
    )


def kobak() -> Config:
    """dkobak/simclr-cifar10 (2025): ResNet-18, batch 512, 1000 epochs of SGD; the best public numbers.

    SGD 0.03 with linear scaling, momentum 0.9, decay 5e-4, cosine, no warm-up; tau 0.5; crop area 0.2 to 1, jitter
    strength 0.5, grey 0.1, no blur; head 1024-128 without BatchNorm; the loss is the mean over the 2N views.
    Not reproduced: there weight decay is on biases and BatchNorm too; the learning rate multiplies the velocity, not
    the gradient; contrast and saturation are torchvision's; each view goes through the encoder on its own, so that
    BatchNorm sees N rows, here 2N.
    Expected: 10-NN 91.4 %, linear 91.7 %, linear with augmentation 91.9 +- 0.1 %.
    Cost: 97,000 steps of 512; 3.3 hours on an A100 for its author.
    """
    return replace(
        Config(),
        preset="kobak",
        dataset="cifar10",
        encoder="resnet18",
        projection_widths=(1024, 128),
        optimizer="sgd",
        learning_rate=0.03,
        learning_rate_scaling="linear",
        weight_decay=5e-4,
        warmup_epochs=0,
        temperature=0.5,
        batch_size=512,
        epochs=1000,
        crop_area=(0.2, 1.0),
        grey_probability=0.1,
        **scale_jitter(0.5),
    )


def solo() -> Config:
    """solo-learn's SimCLR for CIFAR-10: ResNet-18, batch 256, 1000 epochs of LARS, with blur.

    LARS 0.4 with linear scaling, trust coefficient 0.02, decay 1e-4, ten epochs of warm-up; tau 0.2; crop area 0.08 to
    1, jitter strength 1, grey 0.2, blur 0.5; head 2048-256 without BatchNorm; pixels by CIFAR-10's mean and deviation;
    the loss is the mean over the 2N views.
    Not reproduced: its LARS steps by the smaller of trust ratio and learning rate (clip_lr), not by their product;
    float16 (give --precision float16); its blur is not cut to a kernel of 3 pixels; contrast and saturation are
    torchvision's; each view goes through the encoder on its own.
    Expected: linear 90.7 %, by a probe trained along with the encoder.
    Cost: 195,000 steps of 256; no time is published.
    """
    return replace(
        Config(),
        preset="solo",
        dataset="cifar10",
        encoder="resnet18",
        projection_widths=(2048, 256),
        input_mean=(0.4914, 0.4822, 0.4465),
        input_std=(0.2470, 0.2435, 0.2616),
        optimizer="lars",
        learning_rate=0.4,
        learning_rate_scaling="linear",
        trust_coefficient=0.02,
        weight_decay=1e-4,
        warmup_epochs=10,
        temperature=0.2,
        batch_size=256,
        epochs=1000,
        blur_probability=0.5,
        **scale_jitter(1.0),
    )


def lightly() -> Config:
    """The SimCLR row of lightly's CIFAR-10 benchmark: ResNet-18, batch 512, 800 epochs of SGD.

    SGD 0.06 a batch of 128 (0.12 for 256), scaled linearly, momentum 0.9, decay 5e-4, cosine, no warm-up; tau 0.5; crop
    area 0.08 to 1, jitter strength 0.5, grey 0.2, no blur; head 512-128, BatchNorm behind both layers; pixels by
    ImageNet's mean and deviation; the loss is the mean over the 2N views.
    Not reproduced: there weight decay is on biases and BatchNorm too; the learning rate multiplies the velocity;
    contrast and saturation are torchvision's; each view goes through the encoder on its own.
    Expected: 200-NN 87.9 %, the highest over the epochs on the test set; the last epoch, which is reported here, is at
    most that. With --epochs 200, 84.8 %.
    Cost: 77,600 steps of 512; 5.5 hours on an A6000 for its authors.
    """
    return replace(
        Config(),
        preset="lightly",
        dataset="cifar10",
        encoder="resnet18",
        projection_widths=(512, 128),
        projection_batch_norm="all",
        input_mean=(0.485, 0.456, 0.406),
        input_std=(0.229, 0.224, 0.225),
        optimizer="sgd",
        learning_rate=0.12,
        learning_rate_scaling="linear",
        weight_decay=5e-4,
        warmup_epochs=0,
        temperature=0.5,
        batch_size=512,
        epochs=800,
        **scale_jitter(0.5),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "shapes": shapes,
    "cifar10-resnet20": cifar10_resnet20,
    "cifar10-resnet50": cifar10_resnet50,
    "cifar10-resnet18": cifar10_resnet18,
    "day29": day29,
    "simclr-b9": simclr_b9,
    "google-readme": google_readme,
    "kobak": kobak,
    "solo": solo,
    "lightly": lightly,
}
PRESET_OF_DATASET = {"shapes": "shapes"}  # where no preset is named
PRESET_OF_PHOTOGRAPHS = "cifar10-resnet20"  # every other data set


def load_preset(name: str) -> Config:
    """The preset of that name.

    Raises:
        ConfigError: for a name that is none, with the nearest.
    """
    if name not in PRESETS:
        raise ConfigError(describe_unknown("--preset", name, PRESETS))
    return PRESETS[name]()
