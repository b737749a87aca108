# syntax=docker/dockerfile:1
# bitfit in a container. docs/docker.md says how to build, run and check the image.
#
#   docker build --build-arg VARIANT=cuda --tag bitfit:cuda .   for NVIDIA GPUs (runs on a CPU too)
#   docker build --build-arg VARIANT=cpu --tag bitfit:cpu .     a fifth of the size
ARG DEBIAN=trixie
ARG VARIANT=cuda

FROM rust:1.95-slim-${DEBIAN} AS build
ARG VARIANT
# Debian removes old versions of packages, so pinned versions could soon not be installed any more.
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
# The cache mounts keep cargo's output between builds of both variants, so that torch-sys, which
# takes 5 minutes, is compiled once. touch makes build.rs look at libtorch again: a cached layer may
# be older than the output of the other variant.
RUN --mount=type=cache,id=bitfit-wheels,target=/var/cache/bitfit,sharing=locked \
    --mount=type=cache,id=bitfit-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=bitfit-target,target=/src/target,sharing=locked \
    touch "$LIBTORCH/build-version" \
    && cargo build --release --locked --bins \
    && scripts/package.sh --tree /opt/bitfit

FROM debian:${DEBIAN}-slim AS run
# The package lacks only the C++ library, which comes from Debian. The image runs as its own user.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libstdc++6 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home bitfit \
    && install --directory --owner=bitfit --group=bitfit /work /work/models /work/data /work/runs
COPY --from=build /opt/bitfit /opt/bitfit
COPY scripts/docker_entry.sh /usr/local/bin/
RUN ln -s /opt/bitfit/bin/* /usr/local/bin/ \
    && cp -r /opt/bitfit/share/bitfit/configs /work/
# Downloads from the Hub stay in the models' volume.
ENV HF_HOME=/work/models/huggingface
WORKDIR /work
VOLUME ["/work/models", "/work/data", "/work/runs"]
USER 1000:1000
# The port of `serve`.
EXPOSE 8080
ENTRYPOINT ["docker_entry.sh"]
CMD ["--help"]

FROM run AS run-cpu

FROM run AS run-cuda
# For NVIDIA's container toolkit: the driver's libraries that it mounts, and the required driver.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA="cuda>=13.0"

# hadolint ignore=DL3006
FROM run-${VARIANT}
