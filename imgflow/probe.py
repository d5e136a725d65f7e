"""A health check of the image: `python -m imgflow.probe URL` ends with 0 when the page is well.

The image has no curl, and this imports nothing that takes time.
"""

import sys
import urllib.error
import urllib.request

SECONDS = 5


def main(url: str) -> str | None:
    """What is wrong with the page, if anything."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS):  # noqa: S310 - of the image's own services
            return None
    except (urllib.error.URLError, OSError) as error:
        return f"{url}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
