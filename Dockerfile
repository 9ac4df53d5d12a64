# The Lookalike server.
#
#   docker build -t lookalike .
#   docker run -p 50051:50051 -v lookalike-data:/data lookalike
#
# On a GPU (with the NVIDIA container toolkit on the host):
#
#   docker build -t lookalike:gpu --build-arg DEVICE=cuda .
#   docker run --gpus all -p 50051:50051 -v lookalike-data:/data lookalike:gpu
#
# TORCH_INDEX, a package index with CPU-only wheels of torch and torchvision, makes the CPU image several
# gigabytes smaller. See docs/deployment.md.

ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/lookalike
WORKDIR /source
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY client client
COPY extractor extractor
COPY server server
ARG TORCH_INDEX=
RUN /opt/lookalike/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} '.[server]'

FROM ${BASE}
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home lookalike \
    && install --directory --owner=lookalike --group=lookalike /data
COPY --from=build /opt/lookalike /opt/lookalike
ARG DEVICE=cpu
ENV PATH=/opt/lookalike/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LOOKALIKE_ADDRESS=0.0.0.0:50051 \
    LOOKALIKE_DATA=/data \
    LOOKALIKE_DEVICE=${DEVICE}
USER lookalike
WORKDIR /data
VOLUME /data
EXPOSE 50051
# The start period covers the loading of torch and of the weights.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-m", "lookalike_server", "health"]
ENTRYPOINT ["python3", "-m", "lookalike_server"]
