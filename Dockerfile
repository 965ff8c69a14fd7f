# Build:  docker build -t steerward .                      (CPU)
#         docker build -t steerward --build-arg TORCH=cuda .
# Run:    docker run -p 8000:8000 -e STEERWARD_API_KEY=secret -v steerward:/var/lib/steerward steerward
# The install steps are those of `make setup`.
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ARG TORCH=cpu
# Triton compiles a small launcher on first use, so CUDA images keep the compiler (below).
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt Makefile README.md LICENSE ./
COPY steerward steerward
RUN make install-server VENV=/opt/steerward TORCH=${TORCH} EDITABLE=

FROM python:${PYTHON_VERSION}-slim-bookworm AS server
ARG TORCH=cpu
RUN if [ "$TORCH" = cuda ]; then \
      apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
      && rm -rf /var/lib/apt/lists/*; \
    fi \
    && useradd --create-home --uid 10001 steerward \
    && install --directory --owner=steerward --mode=0700 /var/lib/steerward
COPY --from=build /opt/steerward /opt/steerward
USER steerward
ENV PATH=/opt/steerward/bin:$PATH STEERWARD_HOST=0.0.0.0 STEERWARD_PORT=8000 \
    STEERWARD_STATE_DIR=/var/lib/steerward
VOLUME /var/lib/steerward
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as u; import os; u.urlopen('http://127.0.0.1:' + os.environ['STEERWARD_PORT'] + '/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["steerward"]
CMD ["serve"]
