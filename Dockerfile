# docker build -t masktransfer .     docs/containers.md says how to run it, and what was not built by us.
# PyTorch's wheels bring their own CUDA 13.0 libraries; the base brings what finds the host's driver.
ARG BASE=nvidia/cuda:13.0.0-runtime-ubuntu24.04
FROM ${BASE}

RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates git make python3.12 python3.12-venv \
 && rm -rf /var/lib/apt/lists/*

COPY . /opt/masktransfer
WORKDIR /opt/masktransfer
RUN make setup PYTHON=python3.12 \
 && rm -rf /root/.cache \
 && git config --system --add safe.directory /opt/masktransfer \
 && useradd --create-home --uid 10001 masktransfer \
 && install --directory --owner masktransfer /work

ENV PATH=/opt/masktransfer/.venv/bin:$PATH \
    DETECTRON2_DATASETS=/data
USER masktransfer
WORKDIR /work
CMD ["python", "/opt/masktransfer/tools/doctor.py"]
