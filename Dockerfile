# The service on a CPU, without PyTorch; docs/service.md has the commands. The model is mounted, not part of the image.
FROM python:3.12-slim

RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /service
COPY pyproject.toml requirements.lock ./
# The versions of requirements.lock, of the packages of two groups alone.
RUN uv pip install --system --no-cache --compile-bytecode --constraint requirements.lock --group edge --group serve
COPY stages ./stages

USER 65534:65534
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "stages.serve", "--model", "/model"]
CMD ["--host", "0.0.0.0"]
