# txconnect as an image: the program, the libraries it is linked to, and nobody's files.
#
#   ./dev image                    builds it with docker, podman or buildah, and tries it
#   docker build --tag txconnect .
#
# Both stages must be of one Debian release: the program is linked to the libraries of the first one and finds those of
# the second one.
ARG BUILDER_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BUILDER_IMAGE} AS builder
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        build-essential ca-certificates libssl-dev pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What `txconnect version` says; there is no repository in here to ask.
ARG TXCONNECT_REVISION=unknown
# Downloaded crates and compiled dependencies stay in caches of the builder: after a change only our own crates are
# compiled again, and neither cache becomes part of a layer.
RUN --mount=type=cache,id=txconnect-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=txconnect-target,target=/src/target,sharing=locked \
    cargo build --release --locked --package txconnect --bin txconnect \
    && install -D --strip target/release/txconnect /out/txconnect

FROM ${RUNTIME_IMAGE}
# Certificate authorities for brokers, databases and Google; the OpenSSL and zlib that librdkafka is linked to.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 txconnect \
    && useradd --system --uid 10001 --gid txconnect --home-dir /var/lib/txconnect --create-home \
        --shell /usr/sbin/nologin txconnect
COPY --chmod=755 deploy/healthcheck.sh /usr/local/bin/txconnect-health
COPY --from=builder /out/txconnect /usr/local/bin/txconnect
LABEL org.opencontainers.image.title="txconnect" \
      org.opencontainers.image.description="Moves Kafka topics into BigQuery, Postgres or stdout" \
      org.opencontainers.image.licenses="Apache-2.0"
# By number, so that `runAsNonRoot` of Kubernetes can see that it is not root.
USER 10001:10001
# Pipelines and schemas are mounted here: pipelines/*.yaml, schemas/*.json.
WORKDIR /etc/txconnect
# The program is process 1 and gets the signal itself: it stops reading, finishes what is on its way and commits. That
# may take 25 s; docker's own patience is 10 s (`docker stop --time 30`, `stop_grace_period: 30s`).
STOPSIGNAL SIGTERM
# In touch with a broker; see the script for what that does and does not say.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["txconnect-health"]
ENTRYPOINT ["txconnect"]
CMD ["run", "pipelines/"]
