# The server as an image: docker compose up --build
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 VECTORDB_DATA_DIR=/data
WORKDIR /app

COPY requirements/base.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/base.txt

COPY manage.py ./
COPY vectordb vectordb
COPY apps apps
# The kernels are compiled again, and so written, where the image runs on another kind of processor.
RUN python -m compileall -q . && python -m apps.engine.kernels \
    && useradd --create-home vectordb && chown -R vectordb apps/engine/kernels/__pycache__ \
    && install -d -o vectordb -m 700 /data

USER vectordb
VOLUME /data
CMD ["python", "manage.py", "serve"]
