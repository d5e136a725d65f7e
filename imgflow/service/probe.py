"""A health check for containers: `python -m imgflow.service.probe URL` exits with 0 if all is well.

The container image has no curl, so this must import only what is quick to import.
"""

import sys
import urllib.error
import urllib.request

SECONDS = 5

# Requests our own pages directly, whatever proxy the environment sets.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main(url: str) -> str | None:
    """Return what is wrong with the page; None if nothing is."""
    try:
        with DIRECT.open(url, timeout=SECONDS):
            return None
    except (urllib.error.URLError, OSError) as error:
        return f"{url}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
