"""What an asset's page shows before anything is made: description, links and columns.

Nothing here depends on images, since loading the definitions connects to nothing. What does is the
metadata of materialisations, in `runs.materializations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from imgflow.catalog.database.tables import images
from imgflow.orchestration.families import Family, Links

DESCRIPTIONS = {
    "photo/source": "Photographs as they were uploaded; a data version is the identity of an "
    "upload.",
    "photo/grayscale": "BT.601 luma, upright, in the depth of the upload.",
    "photo/thumbnail": "Fits the thumbnail box, never enlarged.",
    "photo/proof": "Small and watermarked, to be shown to others.",
    "photo/metadata": "Rows of the table images, one for each photograph.",
    "depth/source": "Depth images (CSV and others) as they were uploaded; a data version is the "
    "identity of an upload.",
    "depth/resized": "float32 array of the configured width, in chunks in the database.",
    "depth/preview": "Colour-mapped picture of the whole depth image.",
    "depth/metadata": "Rows of the table images, one for each depth image.",
}

# Descriptions of the columns that have no comment in the schema.
MEANINGS = {
    "id": "of the image in the API and the gallery",
    "etag": "of the upload that was processed, as the store names it",
    "version_id": "of that upload, where the bucket keeps versions",
    "size": "bytes of that upload",
    "last_modified": "of that upload",
    "sha256": "of its bytes",
    "media_type": "of its content, whatever its suffix says",
    "outputs": "by name: object, bytes, pixels, fingerprint of the recipe, SHA-256",
    "facts": "format, frames, orientation, depth bounds, notes",
    "run_id": "of the run that processed it last",
    "announced_etag": "of the newest upload",
    "announced_version_id": "of the newest upload",
    "announced_size": "bytes of the newest upload",
    "announced_last_modified": "of the newest upload",
    "attempts": "runs that were asked for it and did not end well",
    "in_partitions": "whether Dagster has a partition of it",
    "created_at": "when it was first seen",
    "updated_at": "when its row last changed",
}


def description_of(family: Family, name: str, otherwise: str = "") -> str:
    """Describe an asset in plain text, because Dagster's catalogue does not render Markdown.

    Args:
        family: The asset's family.
        name: Last part of the asset's key.
        otherwise: Description to use for an output of another package.
    """
    return DESCRIPTIONS.get(f"{family.kind}/{name}", otherwise)


def links_of(links: Links, kind: str) -> dict[str, Any]:
    """Links to the gallery and the API, as metadata of an asset."""
    return {
        "gallery": dg.MetadataValue.url(links.gallery_of(kind)),
        "API": dg.MetadataValue.url(links.docs),
    }


def table_metadata() -> Mapping[str, Any]:
    """Name and columns of the table `images`, under the metadata keys that Dagster shows."""
    return {
        "dagster/table_name": images.name,
        "dagster/column_schema": dg.TableSchema(columns=[_column(c) for c in images.columns]),
    }


def _column(column: sa.Column[Any]) -> dg.TableColumn:
    return dg.TableColumn(
        column.name,
        type=column.type.compile(postgresql.dialect()).split(" COLLATE")[0].lower(),  # type: ignore[no-untyped-call]  # SQLAlchemy's dialects have no types
        description=column.comment or MEANINGS.get(column.name),
        constraints=dg.TableColumnConstraints(
            nullable=bool(column.nullable),
            unique=bool(column.primary_key),
        ),
    )
