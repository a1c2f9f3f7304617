# The image holds the static binary, the roots to verify certificates with, and
# an empty queue; no shell, no libc, no root.
#
#   docker build -t srvrelay .
#   docker run -v ./srvrelay.yaml:/etc/srvrelay/srvrelay.yaml:ro -v queue:/var/lib/srvrelay -p 587:587 srvrelay
#
# It runs as user 65532, who must be able to read the configuration and the key.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/srvrelay ./cmd/srvrelay
RUN mkdir -m 700 -p /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/srvrelay /srvrelay
COPY --from=build --chown=65532:65532 /out/data /var/lib/srvrelay
ENV PATH=/ SRVRELAY_DATA_DIR=/var/lib/srvrelay
USER 65532:65532
VOLUME /var/lib/srvrelay
EXPOSE 25 465 587
# No HEALTHCHECK: a relay that cannot keep its promises ends by itself, so a
# restart policy is enough; what waits is no fault of the container.
ENTRYPOINT ["/srvrelay"]
CMD ["serve"]
