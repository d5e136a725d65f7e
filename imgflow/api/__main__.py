"""`python -m imgflow.api`: runs only the API, on the address and port from the settings.

`imgflow up` (`imgflow.service.up`) runs it together with everything else.
"""

import sys

from uvicorn.config import LOGGING_CONFIG

from imgflow.api.app import create_app
from imgflow.errors import SettingsError
from imgflow.settings.tokens import FILE_NAME, own_token
from imgflow.settings.variables import load_settings
from imgflow.web.server import serve

if __name__ == "__main__":
    try:
        settings = load_settings()
        app = create_app(settings)
    except SettingsError as error:
        sys.exit(f"imgflow: {error}")
    # Only to a terminal: others may read a log.
    is_shown = sys.stderr.isatty() and not settings.api_token
    if is_shown and not (settings.home / FILE_NAME).exists():
        sys.stderr.write(f"Token, shown this once: {own_token(settings.home)}\n")
    serve(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_level=settings.log_level,
        # The app has configured logs already, and the server would undo it.
        log_config=None if settings.log_format == "json" else LOGGING_CONFIG,
    )
