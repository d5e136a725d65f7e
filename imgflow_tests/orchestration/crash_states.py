"""What stands in catalogue, outputs and Dagster after a crash: in part, and in the end."""

from __future__ import annotations

import hashlib
import re
from typing import Any


def unvarying(name: str) -> str:
    """An output's name without what depends on the source, of which every run has its own."""
    return re.sub(r"^(\w+)/[0-9a-f]{8}/(.+/@)[0-9a-f]{32}", r"\1/\2", name)


def half_visible(project: Any) -> list[str]:
    """Everything that a reader could see in part; empty at any moment, also after a crash."""
    wrong = []
    # Both statements see one state, also while a run goes on.
    engine = project.catalog.engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT id, key, kind, state, outputs, height FROM images ORDER BY key"
        ).all()
        whole = dict(
            connection.exec_driver_sql(
                "SELECT image_id || ' ' || \"array\", sum(row_count) FROM depth_chunks GROUP BY 1"
            )
            .tuples()
            .all()
        )
    for row in rows:
        names = set(row.outputs)
        complete = {"resized", "preview"} if row.kind == "depth" else {"grayscale", "thumbnail"}
        if names not in (set(), complete) or (row.state == "ready" and names != complete):
            wrong.append(f"{row.key} is {row.state} with {sorted(names)}")
        for name, record in row.outputs.items():
            if name == "resized":
                if whole.get(f"{row.id} {record['name']}") != record["height"]:
                    wrong.append(f"{row.key} names an array that is not whole")
                continue
            body = project.outputs.get(record["name"])
            if body is None:
                wrong.append(f"{row.key} names {record['name']}, which is missing")
            elif hashlib.sha256(body).hexdigest() != record["sha256"]:
                wrong.append(f"{row.key}: {record['name']} has other bytes than the row says")
    return wrong


def state_of(project: Any) -> dict[str, Any]:
    """All that must be the same whatever happened on the way."""
    images = {image.key: image for image in project.catalog.page(limit=100)}
    with project.catalog.engine.connect() as connection:
        arrays = connection.exec_driver_sql(
            "SELECT i.key, c.\"array\" = (i.outputs -> 'resized' ->> 'name'), sum(row_count), "
            "md5(string_agg(pixels, '' ORDER BY chunk)) "
            'FROM depth_chunks c JOIN images i ON i.id = c.image_id GROUP BY 1, 2, c."array" '
            "ORDER BY 1, 2, 3, 4"
        ).all()
    named = {
        record["name"]
        for image in images.values()
        for name, record in image.outputs.items()
        if name != "resized"
    }
    stored = {
        name: hashlib.sha256(project.outputs.get(name)).hexdigest() for name in project.stored()
    }
    assets = {
        "photo": ("source", "grayscale", "thumbnail", "metadata"),
        "depth": ("source", "resized", "preview", "metadata"),
    }
    partitions = {
        name: sorted(project.instance.get_dynamic_partitions(name))
        for name in ("photos", "depth_images")
    }
    versions = {}
    for image in images.values():
        records = {name: record["sha256"][:32] for name, record in image.outputs.items()}
        expected = {
            **records,
            "source": image.announced,
            "metadata": hashlib.sha256(
                "\n".join([image.announced, *sorted(records.values())]).encode()
            ).hexdigest()[:32],
        }
        for asset in assets[image.kind]:
            try:
                newest = project.newest(f"{image.kind}/{asset}", image.key)
            except IndexError:
                versions[f"{asset} of {image.key}"] = "none"
                continue
            version = newest.tags["dagster/data_version"]
            # An identity is a file's inode and time, so another at each run.
            versions[f"{asset} of {image.key}"] = (
                f"{records.get(asset, 'as the row')}"
                if version == expected.get(asset)
                else f"{version} instead of {expected.get(asset)}"
            )
    return {
        "rows": {
            key: {
                "state": image.state,
                "reason": image.reason_code,
                "sha256": image.sha256,
                "width": image.width,
                "height": image.height,
                "settled": image.processed == image.announced and image.batch is None,
                "outputs": {
                    name: [record["sha256"], record["fingerprint"], record["size"]]
                    for name, record in image.outputs.items()
                },
            }
            for key, image in images.items()
        },
        "arrays": [list(map(str, row)) for row in arrays],
        "stored": sorted([unvarying(name), stored[name]] for name in stored if name in named),
        "orphans": sorted([unvarying(name), stored[name]] for name in stored if name not in named),
        "partitions": partitions,
        "colours": {
            f"{kind}/{asset}": dict(sorted(project.statuses(f"{kind}/{asset}").items()))
            for kind, names in assets.items()
            for asset in names[1:]
        },
        "versions": versions,
    }
