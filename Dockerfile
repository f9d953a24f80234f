# docker build -t isochrone .            (BuildKit, the default since Docker 23)
# podman build --format docker -t isochrone .   (the OCI format has no health checks)
# How to run it: docs/container.md.

FROM docker.io/library/rust:1-bookworm AS build
WORKDIR /build
COPY . .
# What was compiled stays in the cache mounts from build to build, so that a change of ours does not compile the dependencies again.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin isochrone && cp target/release/isochrone /isochrone

FROM docker.io/library/debian:bookworm-slim
# The slim image has no CA certificates; HTTPS checks need them.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /isochrone /usr/local/bin/isochrone
COPY config/container.toml /etc/isochrone/isochrone.toml
COPY LICENSE-MIT LICENSE-APACHE docs/third-party.md src/geo/airports.LICENSE /usr/share/doc/isochrone/
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 53/udp 53/tcp 8053/tcp
# The image has no curl: the program asks itself. It is healthy once the first round of checks is through.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/isochrone", "status", "--admin", "http://127.0.0.1:8053"]
ENTRYPOINT ["/usr/local/bin/isochrone"]
CMD ["serve"]
