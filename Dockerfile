# GRAPE with training, simulators and reports. Two variants, chosen by build arguments:
#
#   docker build -t grape .
#   docker build -t grape:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#   docker run --rm -v "$PWD/runs:/home/grape/runs" grape demo
#   docker run --rm --gpus all -v "$PWD/runs:/home/grape/runs" grape:cuda train ...
#
# The wheels of torch for CUDA bring CUDA along: the host needs NVIDIA's driver and container toolkit, the image no CUDA of its own.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-trixie

# Which build of torch, and which extras; 3.12 is the newest Python that every simulator has wheels for.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=train,metaworld,libero,simpler,report,figures,serve

# Off-screen rendering: EGL and OSMesa for MuJoCo, Vulkan for SAPIEN, for which software needs Mesa 25, that of Debian 13. Releases are
# not pinned: the base image decides.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libglib2.0-0 libosmesa6 libvulkan1 mesa-vulkan-drivers \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/grape
COPY requirements/recorded.txt requirements/recorded.txt
# torch first and alone: its layer, the largest, is rebuilt only when its release changes.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN python -m pip install --no-cache-dir --index-url "${TORCH_INDEX}" "$(grep '^torch==' requirements/recorded.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN grep -v '^torch==' requirements/recorded.txt > constraints.txt \
    && python -m pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
    && rm constraints.txt

RUN useradd --create-home --uid 1000 grape
USER 1000:1000
RUN mkdir /home/grape/runs
WORKDIR /home/grape
ENV NVIDIA_DRIVER_CAPABILITIES=all
ENTRYPOINT ["grape"]
CMD ["--help"]
