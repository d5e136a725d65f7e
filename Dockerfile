# syntax=docker/dockerfile:1
# One image for everything that docker-compose.yml and the Helm chart run. Nothing is downloaded but
# Python packages; with the same SOURCE_DATE_EPOCH and package versions it has the same contents.

# The Python and the Debian that the test suite runs on.
FROM python:3.11.17-slim-bookworm AS build
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/imgflow
# What changes with the dependencies only comes first, so that a changed line of code builds in seconds.
COPY pyproject.toml setup.py README.md LICENSE ./
RUN mkdir imgflow && touch imgflow/__init__.py \
    && /opt/imgflow/bin/pip install ".[cluster,traces]" \
    && /opt/imgflow/bin/pip uninstall --yes imgflow
COPY imgflow imgflow
RUN /opt/imgflow/bin/pip install --no-deps . \
    && /opt/imgflow/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/imgflow/lib \
    && find /opt/imgflow -newermt "@${SOURCE_DATE_EPOCH}" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM python:3.11.17-slim-bookworm
LABEL org.opencontainers.image.title="imgflow" org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 imgflow \
    && useradd --uid 10001 --gid imgflow --no-create-home --home-dir /var/lib/imgflow imgflow \
    && install --directory --owner=imgflow --group=imgflow --mode=700 /var/lib/imgflow
COPY --from=build /opt/imgflow /opt/imgflow
COPY deploy/workspace.yaml /app/deploy/workspace.yaml
COPY deploy/bin /app/deploy/bin
ENV PATH=/app/deploy/bin:/opt/imgflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    IMGFLOW_HOME=/var/lib/imgflow \
    DAGSTER_HOME=/var/lib/imgflow/dagster
WORKDIR /app
USER 10001:10001
# Writes Dagster's home by the settings, and becomes the command.
ENTRYPOINT ["python", "-m", "imgflow.service.container"]
CMD ["imgflow", "doctor"]
