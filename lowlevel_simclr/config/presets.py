"""Presets: named sets of settings with which a run starts.

There are three kinds: presets of this project, a preset for the notes with which the project began (`day29`), and
presets that reproduce published runs.

To add a preset, write a function that returns `replace(Config(), preset=NAME, ...)`, and list it in `PRESETS`. The
docstring of the function says what the preset reproduces, the expected result and the cost. `--help` shows the first
line of the docstring.

In the docstrings, k-NN and "linear" are the accuracies of a k-nearest-neighbour classifier and of a linear classifier
on the output of the encoder. Tau is the temperature of the loss. The stem is the first layers of the encoder: a 3x3
convolution (CIFAR), or a 7x7 convolution with stride 2 and pooling (ImageNet). A view is a random crop of an image, and
the jitter strength says how much its colours change.
"""

from __future__ import annotations

from collections.abc import Callable

from lowlevel_simclr.config.fields import describe_unknown
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config, ConfigError, Range

LARGEST_JITTER = 2.5  # the hue shifts by up to 0.2 * strength of the colour circle, and half a circle reaches every hue


def scale_jitter(strength: float) -> dict[str, Range]:
    """Return the ranges of the four colour operations at a jitter strength s (SimCLR, appendix A).

    Args:
        strength: s in [0, 2.5]. The paper uses 1 for ImageNet and 0.5 for CIFAR-10.

    Returns:
        Brightness, contrast and saturation in [max(0, 1 - 0.8 s), 1 + 0.8 s], and hue in [-0.2 s, 0.2 s], where 1 is
        the full colour circle.

    Raises:
        ConfigError: if the strength is outside [0, 2.5].

    Examples:
        >>> scale_jitter(0.5)["contrast"]
        (0.6, 1.4)
    """
    if not 0 <= strength <= LARGEST_JITTER:
        raise ConfigError(f"--jitter-strength is {strength}. It must be between 0 and {LARGEST_JITTER}.")
    # The bounds are rounded, because 1 - 0.8 is 0.19999999999999996, and users read and compare the ranges.
    factor = (round(max(0.0, 1 - 0.8 * strength), 9), round(1 + 0.8 * strength, 9))
    turn = round(0.2 * strength, 9)
    return {"brightness": factor, "contrast": factor, "saturation": factor, "hue": (-turn, turn)}


def shapes() -> Config:
    """Shapes that this package draws itself: ten classes, 32x32 pixels, nothing to download.

    One command shows a new user an encoder that has learned without labels.
    Expected: k-NN of at least 0.93 on held-out shapes. k-NN on the pixels, or on the output of the untrained encoder,
    stays below 0.60.
    Cost: 546 steps of 128 images. This takes less than five minutes on two CPU cores, with evaluation and plots.
    """
    return replace(
        Config(),
        preset="shapes",
        dataset="shapes",
        image_size=20,  # a step takes 0.4 times the work of views of 32 pixels, and the shapes are still clear
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

    The model is that of the preset `shapes`. The views are those of SimCLR, appendix B.9: crop area 0.08 to 1, jitter
    strength 0.5 (changes of the colours), no blur. Views of 20 x 20 pixels take 0.4 times the work of 32 x 32. Ten
    epochs give a first look at real images, not a result to compare.
    Expected: k-NN on the test set rises over the run. It ends above k-NN on the pixels and on the untrained encoder.
    Cost: 1,950 steps of 256 images, about 25 minutes on two CPU cores.
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
    """CIFAR-10 with ResNet-50: the model of the notes (day29), on the train split and with the paper's views.

    The views are those of SimCLR, appendix B.9: crop area 0.08 to 1, jitter strength 0.5, no blur. The projection head
    is that of the notes, 256-128. The run is short: 20 epochs of AdamW. With `--stem imagenet`, a step is 15 times
    cheaper, but the representation becomes worse.
    Expected: k-NN on the test set rises over the run. It ends above k-NN on the pixels and on the untrained encoder. It
    does not reach the 94 % of the paper, which takes 1000 epochs (`simclr-b9`).
    Cost: 3,900 steps of 256 images. An epoch takes about five minutes on two CPU cores with the ImageNet stem. With the
    CIFAR stem of this preset it takes over two hours, so use a GPU.
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
    """CIFAR-10 with ResNet-18 for 100 epochs: the field's standard encoder, in minutes on one GPU.

    This is the preset `kobak` with twice its learning rate. The author of kobak does the same for 100 epochs.
    Expected: k-NN 83 % and linear 86 %. The author of kobak reports 83.2 and 85.6 %. We have not measured it yet.
    Cost: 9,700 steps of 512 images. The author of kobak needs 20 minutes on an A100. This run is too slow for a CPU.
    """
    return replace(kobak(), preset="cifar10-resnet18", epochs=100, learning_rate=0.06)


def day29() -> Config:
    """The notes that this project began with, with their mistakes corrected (docs/notes.md).

    The notes train on the train and test images of CIFAR-10 together, with pixels in [-1, 1]. A view is a random 28x28
    crop of the 32x32 image, resized to 32, with a random flip. Brightness adds up to 0.5 on the [-1, 1] scale, contrast
    is 0.1 to 0.9, and nothing is clipped. The encoder is Keras's ResNet-50 with its ImageNet weights. The projection
    head is 256-ReLU-128, and tau is 0.5.
    Corrected: the notes dropped the results of flip and contrast, normalised z over the wrong axis, and compared the
    first views only with the second views, in one direction. The weights were trained on blue, green, red, but the
    notes gave them red, green, blue.
    Here each weight gets the colour that it was trained on. The scale of the pixels, [-1, 1], is that of the notes.
    Our choices, because the notes do not state them: AdamW with learning rate 1e-3, batches of 256 images, 5 epochs.
    Expected: k-NN is worse than with the untrained encoder, although the run trains on the test images too.
    The views keep an image's colours, and colours alone tell images apart (docs/notes.md, with the figures).
    Cost: 1,170 steps of 256 images, about six minutes an epoch on two CPU cores. It downloads 95 MB of weights, unless
    you give `--weights random`.
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
        brightness_shift=(-0.25, 0.25),  # +-0.5 for pixels in [-1, 1]
        contrast=(0.1, 0.9),
        saturation=(1.0, 1.0),
        hue=(0.0, 0.0),
        clip=False,
        grey_probability=0.0,
    )


def simclr_b9() -> Config:
    """The paper's own CIFAR-10 run: SimCLR, appendix B.9, ResNet-50, batch 1024, 1000 epochs.

    The optimizer is LARS with linear scaling, weight decay 1e-6 and ten epochs of warm-up. The paper tries learning
    rates of 0.5, 1.0 and 1.5, and this preset uses 1.0. Tau is 0.5, the jitter strength 0.5, there is no blur, and the
    projection head is 2048-128. The loss is the mean over the 2N views. The paper does not state two things, which are
    our choices: a projection head without BatchNorm, and He's initial weights.
    Expected: linear 94.0 %, the best result of the paper's sweep. The best public reproduction reaches 93.7 %.
    Cost: 48,000 steps of 1024 images. This is ten hours on an A100 at the 37 s an epoch that others report.
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

    The optimizer is LARS with learning rate 1.0, linear scaling, weight decay 1e-4 and ten epochs of warm-up. Tau is
    0.5, the jitter strength 0.5, and there is no blur. The projection head has three layers, 512-512-128, with
    BatchNorm after each. The last BatchNorm has no shift. The loss is twice the paper's mean.
    Not reproduced: Google's initial weights are truncated normal of variance 1/fan-in, and ours are He's. Google's
    resize of a crop is bicubic and not antialiased, and ours is bilinear and antialiased.
    Expected: linear about 91 %, according to that README.
    Cost: 97,000 steps of 512 images. Users of Google's code need less than ten hours on a P100.
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
    """dkobak/simclr-cifar10 (2025), the best public numbers: ResNet-18, batch 512, 1000 epochs of SGD.

    The optimizer is SGD with learning rate 0.03, linear scaling, momentum 0.9, weight decay 5e-4 and a cosine schedule
    without warm-up. Tau is 0.5. The crop area is 0.2 to 1, the jitter strength 0.5, the probability of grey 0.1, and
    there is no blur. The projection head is 1024-128 without BatchNorm. The loss is the mean over the 2N views.
    Not reproduced: in the original, weight decay also acts on biases and BatchNorm, and the learning rate multiplies
    the velocity, not the gradient. Contrast and saturation are torchvision's. The first and the second views go through
    the encoder separately, so BatchNorm sees N rows there, and 2N here.
    Expected: 10-NN 91.4 %, linear 91.7 %, linear with augmentation 91.9 +- 0.1 %.
    Cost: 97,000 steps of 512 images. The author of kobak needs 3.3 hours on an A100.
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

    The optimizer is LARS with learning rate 0.4, linear scaling, trust coefficient 0.02, weight decay 1e-4 and ten
    epochs of warm-up. Tau is 0.2. The crop area is 0.08 to 1, the jitter strength 1, the probability of grey 0.2 and of
    blur 0.5. The projection head is 2048-256 without BatchNorm. Pixels are normalised by CIFAR-10's mean and standard
    deviation. The loss is the mean over the 2N views.
    Not reproduced: in the original, the step of LARS is the smaller of trust ratio and learning rate (clip_lr), not
    their product. The original trains in float16 (here: `--precision float16`). Its blur is not cut to a kernel of 3
    pixels. Its contrast and saturation are torchvision's. The first and the second views go through its encoder
    separately.
    Expected: linear 90.7 %, with a linear classifier that is trained at the same time as the encoder.
    Cost: 195,000 steps of 256 images. No time is published.
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

    The optimizer is SGD with momentum 0.9, weight decay 5e-4 and a cosine schedule without warm-up. Its learning rate
    is 0.06 for a batch of 128 (0.12 for 256), scaled linearly. Tau is 0.5. The crop area is 0.08 to 1, the jitter
    strength 0.5, the probability of grey 0.2, and there is no blur. The projection head is 512-128 with BatchNorm
    after both layers. Pixels are normalised by ImageNet's mean and standard deviation. The loss is the mean over the
    2N views.
    Not reproduced: in the original, weight decay also acts on biases and BatchNorm, and the learning rate multiplies
    the velocity, not the gradient. Contrast and saturation are torchvision's. The first and the second views go through
    the encoder separately.
    Expected: 200-NN 87.9 %, and 84.8 % with `--epochs 200`. These are the highest values of all epochs on the test set.
    We report the last epoch, which cannot be higher.
    Cost: 77,600 steps of 512 images. The authors of lightly need 5.5 hours on an A6000.
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


def pictures_64() -> Config:
    """A folder of images whose shorter side is 48 to 111 pixels: ResNet-18 on views of 64 pixels.

    `--dataset folder:PATH` without `--preset` uses this preset for such images. The stem is the first layers of the
    encoder: with the ImageNet stem, feature maps have a sixteenth of the pixels that they have with the CIFAR stem. The
    views are those of the paper for CIFAR-10, without blur. The batch is never larger than the number of images.
    Expected: k-NN better than on the pixels and on the untrained encoder. We have not measured it yet.
    Cost: 100 passes over the images. Use a GPU for more than a few thousand images.
    """
    return replace(
        Config(),
        preset="pictures-64",
        dataset="folder:PICTURES",
        encoder="resnet18",
        stem="imagenet",
        image_size=64,
        epochs=100,
        learning_rate=1e-3,
        **scale_jitter(0.5),
    )


def pictures_128() -> Config:
    """A folder of photographs whose shorter side is 112 pixels or more: ResNet-18 on views of 128 pixels.

    `--dataset folder:PATH` without `--preset` uses this preset for such images. The changes of the colours and the blur
    are those of the paper for ImageNet. The smallest crop is a fifth of the image. This crop has 128 x 128 pixels if
    the shorter side of the image has 287 pixels, so larger images are stored in that size. The batch is never larger
    than the number of images.
    Expected: k-NN better than on the pixels and on the untrained encoder. We have not measured it yet.
    Cost: 100 passes over the images. Use a GPU for more than a thousand images.
    """
    return replace(
        Config(),
        preset="pictures-128",
        dataset="folder:PICTURES",
        encoder="resnet18",
        stem="imagenet",
        image_size=128,
        epochs=100,
        learning_rate=1e-3,
        crop_area=(0.2, 1.0),
        blur_probability=0.5,
        **scale_jitter(1.0),
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
    "pictures-64": pictures_64,
    "pictures-128": pictures_128,
}
PRESET_OF_DATASET = {"shapes": "shapes"}  # the preset of a data set, if the user names no preset
PRESET_OF_PHOTOGRAPHS = "cifar10-resnet20"  # the preset of every other data set
# For a folder of images, the median of the images' shorter sides decides. PRESETS_OF_PICTURES has, for each preset, the
# least median in pixels for which this preset is chosen. The largest comes first.
LARGEST_FOR_PICTURES = "pictures-128"  # chosen only where there is a GPU
PRESETS_OF_PICTURES = {LARGEST_FOR_PICTURES: 112, "pictures-64": 48, PRESET_OF_PHOTOGRAPHS: 0}


def load_preset(name: str) -> Config:
    """Return the preset with the given name.

    Raises:
        ConfigError: if there is no such preset. The message suggests the nearest one.
    """
    if name not in PRESETS:
        raise ConfigError(describe_unknown("--preset", name, PRESETS))
    return PRESETS[name]()
