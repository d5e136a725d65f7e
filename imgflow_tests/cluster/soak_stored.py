"""What a soak has put into the store and what lies there: by the store's own log and listing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote

from imgflow.assembly import build_families
from imgflow.catalog.records import Image
from imgflow.settings.variables import load_settings
from imgflow.store.naming import MARKER, output_name
from imgflow_tests.cluster.cluster import Cluster
from imgflow_tests.cluster.conftest import SOURCE
from imgflow_tests.cluster.soak_stories import Step, contents_of

REQUEST = re.compile(r'beast: \S+ (\S+) - .*? "(PUT|GET) /imgflow/(in|out)/(\S+) HTTP[^"]*" 2\d\d ')


@dataclass
class Judgement:
    """What was found.

    Attributes:
        wrong: sentences; none when all is well.
        counts: numbers for the report.
    """

    wrong: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def compare(self, what: str, found: Iterable[str], expected: Iterable[str]) -> None:
        """Note which are too many and which are missing."""
        found, expected = set(found), set(expected)
        for sentence, keys in (("too many", found - expected), ("missing", expected - found)):
            if keys:
                self.wrong.append(f"{what}: {len(keys)} {sentence}: {sorted(keys)[:5]}")


def names_of(image: Image) -> set[str]:
    """The objects that a row names."""
    return {record["name"] for name, record in image.outputs.items() if name != "resized"}


def listed(cluster: Cluster, prefix: str) -> set[str]:
    """The keys below a prefix, without it."""
    pages = cluster.s3().get_paginator("list_objects_v2").paginate(Bucket="imgflow", Prefix=prefix)
    return {
        entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", ())
    }


def judge_requests(
    cluster: Cluster, steps: Sequence[Step], in_hand: Counter[str], judgement: Judgement
) -> None:
    """Nothing is made twice but what a killed worker had in hand: the store's own log says so.

    The name of an output holds key, content and recipe.
    """
    writes: Counter[str] = Counter()
    reads = 0
    workers = {m.address for name, m in cluster.machines.items() if name.startswith("worker")}
    log = cluster.folder / "ceph" / "client.rgw.a.log"
    with log.open(errors="replace") as lines:
        for line in lines:
            if found := REQUEST.search(line):
                client, method, place, name = found.groups()
                if (method, place) == ("PUT", "out"):
                    writes[unquote(name)] += 1
                elif (method, place) == ("GET", "in") and client in workers and "?" not in name:
                    reads += 1
    repeated = {name: count - 1 for name, count in writes.items() if count > 1}
    allowed = {name for name in repeated if repeated[name] <= in_hand[_key(name)]}
    for name in sorted(repeated.keys() - allowed)[:10]:
        judgement.wrong.append(
            f"{name} was written {writes[name]} times; killed workers had it in hand "
            f"{in_hand[_key(name)]} times"
        )
    judgement.counts |= {
        "uploads": sum(step.content is not None for step in steps),
        "deletions": sum(step.content is None for step in steps),
        "reads by workers": reads,
        "outputs written": writes.total(),
        "distinct outputs": len(writes),
        "written again after a kill": len(allowed),
        "written twice": len(repeated) - len(allowed),
        "in the hands of killed workers": in_hand.total(),
    }


def _key(name: str) -> str:
    """The key of an output: its name is `OUTPUT/SOURCE/KEY/@DIGEST.EXTENSION`."""
    return name.split("/", 2)[2].rpartition("/@")[0]


def judge_stored(
    cluster: Cluster, steps: Sequence[Step], images: Mapping[str, Image], judgement: Judgement
) -> None:
    """What no row names is of an older content of its key, and waits for the nightly collector."""
    named = {name for image in images.values() for name in names_of(image)}
    families = {family.kind: family for family in build_families(load_settings(_env_file=None))}
    contents = contents_of(steps)
    orphans = listed(cluster, "out/") - named - {MARKER}
    for name in orphans:
        key, output = _key(name), name.partition("/")[0]
        recipe = families["depth" if output == "preview" else "photo"].outputs[output]
        hashes = [hashlib.sha256(content.body()).hexdigest() for content in contents.get(key, ())]
        extension = PurePosixPath(name).suffix
        names = [output_name(output, SOURCE, key, f"{sha}/{recipe}", extension) for sha in hashes]
        if name not in names:
            judgement.wrong.append(f"{name} is of no content that {key} has ever had")
    judgement.counts["outputs left to the collector"] = len(orphans)
