"""Dagster's UI as operators use it: the real webserver and daemon, in Chromium.

Each test takes a screenshot of what it has reached. Those in `docs/images` are made by these tests
and by `imgflow_tests/api/gallery/test_screenshots.py`; after a change that shows, renew them with

    IMGFLOW_TEST_SCREENSHOTS=docs/images python -m pytest imgflow_tests/ui \
        imgflow_tests/api/gallery/test_screenshots.py

and look at each. `imgflow_tests/test_pictures_of_docs.py` sees to it that none is missing, left
over or too large.
"""
