"""What a data card says in words: origin, licences, how the labels were made, limits, errors elsewhere, citation.

docs/data-card.md says the same; a test compares them.
"""

from __future__ import annotations

__all__ = [
    "ANNOTATION",
    "BIBTEX",
    "ERRATA",
    "HOMEPAGE",
    "IMAGES_FROM",
    "IMAGES_LICENCE",
    "IMAGES_LICENCE_URL",
    "LABELS_FROM",
    "LABELS_LICENCE_URL",
    "LIMITS",
    "NOT_FOR",
    "ODD_IMAGES",
    "PAPER",
]

HOMEPAGE = "https://github.com/google-research/reassessed-imagenet"
PAPER = "https://arxiv.org/abs/2006.07159"
IMAGES_FROM = (
    "`ILSVRC2012_img_val.tar`, 6,744,924,160 bytes, MD5 `29b22e2961454d5413ddabcf34fc5622`, from image-net.org"
)
IMAGES_LICENCE = "non-commercial research and education, under ImageNet's terms of access"
IMAGES_LICENCE_URL = "https://www.image-net.org/download.php"
LABELS_FROM = "ILSVRC2012 ground truth, and google-research/reassessed-imagenet (Apache-2.0)"
LABELS_LICENCE_URL = "https://spdx.org/licenses/Apache-2.0.html"
ANNOTATION = (
    "A set of models proposed classes for each image. 24,889 images were rated: five raters answered for each proposed "
    "class whether it is in the image. Their answers were combined into a score for each image and class, and the "
    "classes with a score above 0.8 became the labels. On the other images the models agreed with the original label, "
    "which is kept."
)
LIMITS = (
    "Only classes that a model proposed could become labels.",
    "Images without an accepted label do not count. That alone raises accuracies, so a result shows how much.",
    "The raters' reading of nearly synonymous classes, such as *sunglass* and *sunglasses*, is part of the labels.",
)
NOT_FOR = "training: these are labels of a validation set. Not for claims about people: some images show them"
ERRATA = (
    '"About 3500" images without a label are 3,163.',
    "The TFDS catalogue's example reads `split='train'`, but there is only `validation`.",
    "The catalogue's BibTeX names arXiv 2002.05709; the right number is 2006.07159.",
    "The label project's README has `i+i` in a snippet where `i+1` is meant.",
)
ODD_IMAGES = (
    "Image 1 is a good test for labels that are shifted by one: it has no ReaL label, and its original label is 65. "
    "`ILSVRC2012_val_00019877.JPEG` is CMYK, and some images are grayscale."
)
BIBTEX = r"""@article{beyer2020imagenet,
  title   = {Are we done with {ImageNet}?},
  author  = {Lucas Beyer and Olivier J. H{\'e}naff and Alexander Kolesnikov and Xiaohua Zhai and
             A{\"a}ron van den Oord},
  journal = {arXiv preprint arXiv:2006.07159},
  year    = {2020}
}
@article{russakovsky2015imagenet,
  title   = {{ImageNet} Large Scale Visual Recognition Challenge},
  author  = {Olga Russakovsky and Jia Deng and Hao Su and Jonathan Krause and Sanjeev Satheesh and Sean Ma and Zhiheng
             Huang and Andrej Karpathy and Aditya Khosla and Michael Bernstein and Alexander C. Berg and Li Fei-Fei},
  journal = {International Journal of Computer Vision},
  volume  = {115},
  number  = {3},
  pages   = {211--252},
  year    = {2015}
}
@software{wds_real,
  title   = {wds_real: exact evaluation on {ImageNet} with {ReaL} labels},
  version = {0.1.0}
}
"""
