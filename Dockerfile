# The server as an image: make image, or docker compose up --build. docs/deployment.md says how to run it.
ARG PYTHON=python:3.13-slim-trixie

FROM ${PYTHON} AS build
RUN python -m venv --without-pip /opt/vectordb
WORKDIR /src
COPY requirements/base.txt requirements/
RUN pip --python /opt/vectordb/bin/python install --no-cache-dir --require-hashes --requirement requirements/base.txt
COPY . .
RUN pip --python /opt/vectordb/bin/python install --no-cache-dir --no-deps .
WORKDIR /
# Without tests and translations of libraries. Kernels are for this kind of processor: on another, the server compiles again,
# into the volume.
RUN find /opt/vectordb \( -type d -name tests -o -name "*.[mp]o" \) -prune -exec rm -r {} + \
    && /opt/vectordb/bin/python -m apps.engine.kernels

FROM ${PYTHON}
ARG VERSION=
LABEL org.opencontainers.image.title="vectordb" \
      org.opencontainers.image.description="A vector database server: one process to start, one folder of data." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
# By numbers, which a Kubernetes that wants no root can read.
RUN groupadd --gid 10001 vectordb \
    && useradd --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin vectordb \
    && install --directory --owner 10001 --group 10001 --mode 700 /data
# The official base has its standard library as source alone, which each process would compile again: nothing is written here.
RUN python -m compileall -q -x /site-packages/ "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/vectordb /opt/vectordb
ENV PATH=/opt/vectordb/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VECTORDB_DATA_DIR=/data \
    VECTORDB_BIND=0.0.0.0:8000 \
    XDG_CACHE_HOME=/data/.cache
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=15s --timeout=6s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
CMD ["vectordb", "serve"]
