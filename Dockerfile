# Two images: `chat`, the server and what it needs, nothing more; `lab`, the workbook in JupyterLab.
#   docker build --target chat -t chatlab-chat .

FROM python:3.13.15-slim-trixie AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN useradd --create-home --uid 1000 chatlab
WORKDIR /srv/chatlab

# The locked packages come before the source: a change of the source does not install them again.
FROM base AS chat
COPY requirements/serve.txt requirements/
RUN pip install --require-hashes -r requirements/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY chatlab chatlab
RUN pip install --no-deps --no-build-isolation .
USER chatlab
EXPOSE 8000
CMD ["chatlab", "serve", "chat", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS lab
COPY requirements/lab.txt requirements/
RUN pip install --require-hashes -r requirements/lab.txt
COPY --chown=chatlab . .
RUN pip install --no-deps --no-build-isolation --editable . && chown chatlab .
USER chatlab
EXPOSE 8888
CMD ["chatlab", "lab", "--no-browser", "--ip", "0.0.0.0", "--port", "8888"]
