# Sealpost in a container. Build it with:  docker build --tag sealpost .
#
# The image is a small Debian with the binary. It runs as a user of its own (65532), keeps its queue in /var/lib/sealpost, and
# listens for devices on 8080. Its admin address is loopback within the container: docker exec CONTAINER sealpost status

FROM rust:1.95-slim-trixie AS build
WORKDIR /build
COPY . .
RUN cargo build --locked --release --bin sealpost && mkdir /queue

FROM debian:trixie-slim
RUN useradd --system --uid 65532 --no-create-home --shell /usr/sbin/nologin sealpost
COPY --from=build /build/target/release/sealpost /usr/bin/sealpost
COPY --from=build --chown=65532:65532 /queue /var/lib/sealpost
COPY LICENSE-APACHE LICENSE-MIT settings.toml /usr/share/doc/sealpost/
ENV SEALPOST__SERVER__LISTEN=0.0.0.0:8080 \
    SEALPOST__QUEUE__PATH=/var/lib/sealpost
USER 65532:65532
WORKDIR /var/lib/sealpost
VOLUME /var/lib/sealpost
EXPOSE 8080
# Answers when the core does. A long queue is read before that.
HEALTHCHECK --interval=30s --timeout=15s --start-period=2m CMD ["/usr/bin/sealpost", "status", "--json"]
ENTRYPOINT ["/usr/bin/sealpost"]
