# One image a role. `docker build --target ingest -t cmath-stream/ingest:0.1.0 .`, and so for each target below.
#
# Base images are pinned by exact version. To pin what a version means today, append its digest:
# `docker buildx imagetools inspect python:3.12.11-slim-bookworm` prints it, and
# `--build-arg PYTHON=python:3.12.11-slim-bookworm@sha256:…` uses it.
ARG PYTHON=python:3.12.11-slim-bookworm

# ---- building: uv and caches stay here -------------------------------------------------------------
FROM ${PYTHON} AS build
# Compiled here, since a container's file system is read-only.
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 VIRTUAL_ENV=/venv
RUN python -m pip install --no-cache-dir uv==0.13.9 && uv venv /venv
COPY deploy/requirements /requirements

FROM build AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY realtime realtime
COPY workers workers
COPY cmath_stream cmath_stream
RUN uv build --wheel --out-dir /wheels

# The package names the dependencies of all roles; each image gets those of its own role, and the package alone.
FROM build AS ingest-venv
RUN uv pip install -r /requirements/ingest.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

FROM build AS worker-venv
ENV UV_TORCH_BACKEND=cpu
RUN uv pip install -r /requirements/worker.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

# CUDA 12 for the workers: CTranslate2, which runs Whisper, looks for its libraries and finds those of torch.
FROM build AS worker-cuda-venv
ENV UV_TORCH_BACKEND=cu126
RUN uv pip install -r /requirements/worker.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

FROM build AS fusion-venv
ENV UV_TORCH_BACKEND=cpu
RUN uv pip install -r /requirements/fusion.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

# torch as its publisher ships it by default: the CUDA version that torch-tensorrt is made for.
FROM build AS fusion-cuda-venv
RUN uv pip install -r /requirements/fusion-cuda.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

# ---- running -----------------------------------------------------------------------------------------
FROM ${PYTHON} AS role
RUN groupadd --gid 10001 cmath && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /cache cmath \
    && install -d -o 10001 -g 10001 /cache
# What is made or fetched once (the text encoder as onnx runs it, Whisper, compiled engines) lies in /cache:
# give it a volume. All else may be read-only but /tmp.
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface
WORKDIR /app
COPY configs configs
VOLUME /cache
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["cmath-stream"]

FROM role AS ingest
COPY --from=ingest-venv /venv /venv
EXPOSE 8080/tcp
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=3)"]
CMD ["--config", "/app/configs/live.toml", "serve"]

FROM role AS worker
COPY --from=worker-venv /venv /venv
COPY deploy/at_work.py deploy/at_work.py
HEALTHCHECK --interval=60s --timeout=10s --start-period=120s CMD ["python", "/app/deploy/at_work.py"]
CMD ["--config", "/app/configs/live.toml", "worker", "text"]

FROM role AS worker-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=worker-cuda-venv /venv /venv
COPY deploy/at_work.py deploy/at_work.py
HEALTHCHECK --interval=60s --timeout=10s --start-period=120s CMD ["python", "/app/deploy/at_work.py"]
CMD ["--config", "/app/configs/live.toml", "worker", "text"]

# No health check: the fusion serves no HTTP, and one that owns no shard reads nothing. It ends when it cannot go on.
FROM role AS fusion
COPY --from=fusion-venv /venv /venv
HEALTHCHECK NONE
CMD ["--config", "/app/configs/live.toml", "worker", "fuse"]

FROM role AS fusion-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=fusion-cuda-venv /venv /venv
HEALTHCHECK NONE
CMD ["--config", "/app/configs/live.toml", "worker", "fuse"]
