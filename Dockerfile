# The server in a container. Build: docker build -t jadevectordb .
# Everything is installed from requirements.lock with hashes, without what only tests need (deploy/production_lock.py).

FROM python:3.11-slim AS build
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Libraries first: this layer is built anew only when the lock changes
COPY pyproject.toml requirements.lock ./
COPY deploy/production_lock.py deploy/
RUN python deploy/production_lock.py --extra embeddings --extra telemetry --extra parquet > /production.lock \
 && python deploy/production_lock.py --also hatchling > /build.lock \
 && python -m venv /opt/jadevectordb \
 && /opt/jadevectordb/bin/pip install --require-hashes -r /production.lock \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r /build.lock
COPY README.md LICENSE ./
COPY src src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/jadevectordb/bin/pip install --no-deps --no-index /wheels/jadevectordb-*.whl \
 && /opt/jadevectordb/bin/python -m compileall -q /opt/jadevectordb/lib

FROM python:3.11-slim
# A fixed number, so that a volume's files keep their owner from one image to the next
RUN groupadd --gid 10001 jade \
 && useradd --uid 10001 --gid jade --no-create-home --home-dir /data --shell /usr/sbin/nologin jade \
 && install -d -o jade -g jade -m 0750 /data
COPY --from=build /opt/jadevectordb /opt/jadevectordb
ENV PATH=/opt/jadevectordb/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    JADEVECTORDB_HOST=0.0.0.0 \
    JADEVECTORDB_DATA=/data \
    JADEVECTORDB_LOG_FORMAT=json
USER jade
WORKDIR /data
VOLUME /data
EXPOSE 8080 9080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=2).read()"]
# The exec form: signals reach the server itself, and it finishes running requests before it stops
ENTRYPOINT ["jade"]
CMD ["serve"]
