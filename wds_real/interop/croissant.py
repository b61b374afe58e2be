"""Croissant: the description of a data set in JSON-LD, with the fields for responsible AI (RAI).

The images are extracted from the shards, the labels from ``index.json``, and both are joined on the key. The labels are
in the shards too, as ``KEY.json``, but readers of Croissant parse no JSON files in archives.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wds_real.data.catalogue import DESCRIPTION, catalogue
from wds_real.format.manifest import INDEX_NAME, MANIFEST_NAME
from wds_real.interop.card_text import (
    ANNOTATION,
    BIBTEX,
    HOMEPAGE,
    IMAGES_FROM,
    IMAGES_LICENCE_URL,
    LABELS_LICENCE_URL,
    LIMITS,
    NOT_FOR,
)

if TYPE_CHECKING:
    from wds_real.data.dataset import Dataset

__all__ = ["croissant_json"]

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
_KEY_OF_IMAGE = "([^.]+)"  # mlcroissant applies it twice: to the file name, and to the result


def croissant_json(dataset: Dataset) -> str:
    """Return the description of a data set as JSON-LD; paths in it are relative to the folder of the shards."""
    manifest = dataset.manifest
    description = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": manifest.dataset,
        "description": DESCRIPTION,
        "conformsTo": _CONFORMS_TO,
        "version": manifest.version,
        "url": HOMEPAGE,
        "license": [IMAGES_LICENCE_URL, LABELS_LICENCE_URL],
        "citeAs": BIBTEX,
        "creator": {"@type": "sc:Organization", "name": "ImageNet; google-research/reassessed-imagenet"},
        "datePublished": "2020-06-12",  # of the ReaL labels' paper
        "keywords": ["imagenet", "real labels", "image classification", "evaluation", "webdataset"],
        "isLiveDataset": False,
        **_responsible_ai(dataset),
        "distribution": _distribution(dataset),
        "recordSet": [_split_record_set(manifest.split), _record_set(manifest.split)],
    }
    return json.dumps(description, indent=1) + "\n"


def _responsible_ai(dataset: Dataset) -> dict[str, Any]:
    facts = catalogue(dataset)
    return {
        "rai:dataCollection": f"Images from {IMAGES_FROM}, packed unchanged. Source of this set: {facts['source']}.",
        "rai:dataCollectionType": ["Web Scraping", "Manual Human Curator"],
        "rai:dataCollectionMissingData": (
            f"{facts['without_real_label']:,} of {facts['num_samples']:,} images have no ReaL label."
        ),
        "rai:dataAnnotationProtocol": [ANNOTATION],
        "rai:annotationsPerItem": "five raters for each proposed class of a rated image",
        "rai:machineAnnotationTools": ["classifiers that proposed classes"],
        "rai:dataUseCases": ["Evaluation of image classifiers.", f"Not for {NOT_FOR}."],
        "rai:dataLimitations": list(LIMITS),
        "rai:dataBiases": [LIMITS[0], LIMITS[2]],
        "rai:personalSensitiveInformation": ["Some images show people."],
    }


def _distribution(dataset: Dataset) -> list[dict[str, Any]]:
    manifest = dataset.manifest
    shards = [
        {
            "@type": "cr:FileObject",
            "@id": shard.name,
            "name": shard.name,
            "contentUrl": shard.name,
            "contentSize": f"{shard.num_bytes} B",
            "encodingFormat": "application/x-tar",
            "sha256": shard.sha256,
        }
        for shard in manifest.shards
    ]
    index = {
        "@type": "cr:FileObject",
        "@id": INDEX_NAME,
        "name": INDEX_NAME,
        "description": f"Columns over all samples; {MANIFEST_NAME} has its SHA-256.",
        "contentUrl": INDEX_NAME,
        "contentSize": f"{manifest.index_num_bytes} B",
        "encodingFormat": "application/json",
        "sha256": manifest.index_sha256,
    }
    contained = [{"@id": shard.name} for shard in manifest.shards]
    labels, images = (
        {
            "@type": "cr:FileSet",
            "@id": identity,
            "name": identity,
            "description": description,
            "containedIn": contained,
            "encodingFormat": encoding,
            "includes": includes,
        }
        for identity, description, encoding, includes in (  # mlcroissant can join the last file set of an archive only
            ("labels", "file_name, original_label and real_label of each image.", "application/json", "*.json"),
            ("images", "The images of all shards.", "image/jpeg", "*.jpg"),
        )
    )
    return [*shards, index, labels, images]


def _split_record_set(split: str) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": "sc:URL"},
        ],
        "data": [{"splits/name": split, "splits/url": "https://mlcommons.org/definitions/test_split"}],
    }


def _record_set(split: str) -> dict[str, Any]:
    def field(name: str, kind: str | list[str], description: str, source: dict[str, Any]) -> dict[str, Any]:
        return {
            "@type": "cr:Field",
            "@id": f"{split}/{name}",
            "name": name,
            "description": description,
            "dataType": kind,
            "source": source,
        }

    def column(name: str) -> dict[str, Any]:
        return {"fileObject": {"@id": INDEX_NAME}, "extract": {"jsonPath": f"$.{name}[*]"}}

    key_of_image = {
        "fileSet": {"@id": "images"},
        "extract": {"fileProperty": "filename"},
        "transform": {"regex": _KEY_OF_IMAGE},
    }
    real = {"isArray": True, "arrayShape": "-1"}
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": "One record an image.",
        "key": {"@id": f"{split}/key"},
        "field": [
            field("key", "sc:Text", "The file name without .JPEG.", column("key")),
            {
                **field("image_key", "sc:Text", "The same, of the image's file in the shard.", key_of_image),
                "references": column("key"),
            },
            field(
                "image",
                "sc:ImageObject",
                "The JPEG of the source, unchanged.",
                {"fileSet": {"@id": "images"}, "extract": {"fileProperty": "content"}},
            ),
            field("original_label", "sc:Integer", "Class index 0..999.", column("original_label")),
            {
                **field("real_label", "sc:Integer", "Class indices 0..999, none or several.", column("real_label")),
                **real,
            },
        ],
    }
