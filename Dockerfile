# One image for servers, workers and the evaluator. BASE may be any image with Python 3.11+ and its venv module.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# pip's options for building where packages come from elsewhere, such as --index-url.
ARG PIP_OPTIONS=
COPY pyproject.toml README.md LICENSE /source/
COPY paramserver /source/paramserver
COPY server /source/server
COPY worker /source/worker
RUN python3 -m venv /opt/paramserver \
    && /opt/paramserver/bin/python -m pip install --no-cache-dir --disable-pip-version-check ${PIP_OPTIONS} "/source[tls]"

FROM ${BASE}
COPY --from=build /opt/paramserver /opt/paramserver
# A new volume takes the owner of the folder that it is mounted over.
RUN useradd --create-home --uid 1000 paramserver \
    && mkdir -p /runs /workers /job /keys/server /keys/worker \
    && chown -R paramserver /runs /workers /keys
USER paramserver
ENV PATH=/opt/paramserver/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /job
ENTRYPOINT ["paramserver"]
CMD ["--help"]
