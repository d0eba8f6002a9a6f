# Sealpost in a container. Build it with:  docker build --tag sealpost .
#
# The image has the binary and what it links to, no shell. It runs as nobody's user, keeps its queue in /var/lib/sealpost,
# and listens for devices on 8080. Its admin address is loopback within the container: docker exec sealpost sealpost status

FROM rust:1.95-slim-trixie AS build
WORKDIR /build
COPY . .
RUN cargo build --locked --release --bin sealpost && mkdir /queue

FROM gcr.io/distroless/cc-debian13:nonroot
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
HEALTHCHECK --interval=30s --timeout=15s --start-period=2m CMD ["/usr/bin/sealpost", "status"]
ENTRYPOINT ["/usr/bin/sealpost"]
