# editr1 on an NVIDIA GPU: docker build -t editr1 . && docker run --rm --gpus all -v "$PWD:/work" editr1 check qwen.yaml
# torch's wheels bring CUDA's libraries; the base brings what the driver is found by.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends python3 python3-venv && \
    rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/editr1
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/editr1/bin/pip install --no-cache-dir -c constraints.txt '.[serve,toy,figures,tensorboard]'

FROM ${BASE}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends python3 && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --create-home --uid 10001 editr1
COPY --from=build /opt/editr1 /opt/editr1
ENV PATH=/opt/editr1/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
ENTRYPOINT ["editr1"]
CMD ["--help"]
