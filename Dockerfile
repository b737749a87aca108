# syntax=docker/dockerfile:1
# bitfit in a container: docs/docker.md says how to build it, run it and see that it works.
#
#   docker build --build-arg VARIANT=cuda --tag bitfit:cuda .     for NVIDIA GPUs (runs on a CPU too)
#   docker build --build-arg VARIANT=cpu --tag bitfit:cpu .       a fifth of the size
ARG DEBIAN=trixie
ARG VARIANT=cuda

FROM rust:1.95-slim-${DEBIAN} AS build
ARG VARIANT
# Debian removes old versions of its packages, so that a pinned one could not be installed for long.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-pip \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ENV LIBTORCH=/opt/libtorch/torch BITFIT_CACHE=/var/cache/bitfit
COPY scripts/common.sh scripts/download_libtorch.sh scripts/libtorch.lock scripts/
RUN --mount=type=cache,id=bitfit-wheels,target=/var/cache/bitfit,sharing=locked \
    scripts/download_libtorch.sh "--$VARIANT" --dir /opt/libtorch
COPY . .
# What cargo makes stays between builds, of either variant: torch-sys, which takes some 5 minutes, is compiled once. build.rs
# looks again at which libtorch is there: a layer from the cache is older than what another variant left.
RUN --mount=type=cache,id=bitfit-wheels,target=/var/cache/bitfit,sharing=locked \
    --mount=type=cache,id=bitfit-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=bitfit-target,target=/src/target,sharing=locked \
    touch "$LIBTORCH/build-version" \
    && cargo build --release --locked --bins \
    && scripts/package.sh --tree /opt/bitfit

FROM debian:${DEBIAN}-slim AS run
# Debian's own C++ library is all that the package does not bring; a user of its own runs it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libstdc++6 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home bitfit \
    && install --directory --owner=bitfit --group=bitfit /work /work/models /work/data /work/runs
COPY --from=build /opt/bitfit /opt/bitfit
RUN ln -s /opt/bitfit/bin/* /usr/local/bin/ \
    && cp -r /opt/bitfit/share/bitfit/configs /work/
# What is fetched from the Hub stays in the models' volume.
ENV HF_HOME=/work/models/huggingface
WORKDIR /work
VOLUME ["/work/models", "/work/data", "/work/runs"]
USER 1000:1000
ENTRYPOINT ["bitfit-train"]
CMD ["--help"]

FROM run AS run-cpu

FROM run AS run-cuda
# For NVIDIA's container toolkit: which of the driver's libraries it brings in, and what driver is needed.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility NVIDIA_REQUIRE_CUDA="cuda>=13.0"

# hadolint ignore=DL3006
FROM run-${VARIANT}
