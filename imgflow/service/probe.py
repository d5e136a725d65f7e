"""A health check of the image: `python -m imgflow.service.probe URL` ends with 0 if all is well.

The image has no curl, and this imports nothing that takes time.
"""

import sys
import urllib.error
import urllib.request

SECONDS = 5

# Our own pages are asked for directly, whatever proxy the environment names for the rest.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main(url: str) -> str | None:
    """What is wrong with the page, if anything."""
    try:
        with DIRECT.open(url, timeout=SECONDS):
            return None
    except (urllib.error.URLError, OSError) as error:
        return f"{url}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
