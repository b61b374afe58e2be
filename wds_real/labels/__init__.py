"""Original and ReaL labels, joined to images by file name, never by position."""

from wds_real.labels.class_names import NUM_CLASSES, ClassInfo, classes
from wds_real.labels.file_names import NUM_IMAGES, canonical_file_name
from wds_real.labels.tables import (
    Label,
    Labels,
    at_threshold,
    bundled,
    by_file_name,
    digest_labels,
    load_real_json,
    parse_real_json,
)

__all__ = [
    "NUM_CLASSES",
    "NUM_IMAGES",
    "ClassInfo",
    "Label",
    "Labels",
    "at_threshold",
    "bundled",
    "by_file_name",
    "canonical_file_name",
    "classes",
    "digest_labels",
    "load_real_json",
    "parse_real_json",
]
