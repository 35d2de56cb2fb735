# The course in a container: docker build -t rabbitmq-by-example:dev .
#
# pip and its files stay in the earlier stages. The requirements come before the scripts, so a changed script rebuilds only
# the last layer, which has less than a megabyte.

# The requirements of all folders in one file. As long as none of them changes, the next stage comes from the cache.
# Those of amqp_1_0 are left out, because they need a C compiler; its scripts then say what is missing.
FROM python:3.14-slim AS wanted
COPY . /src
RUN find /src -name requirements.txt ! -path '*/amqp_1_0/*' -exec cat {} + | grep -Ev '^(-|#|$)' | sort -u > /wanted.txt

FROM python:3.14-slim AS installed
RUN python -m venv /opt/venv
COPY --from=wanted /wanted.txt /
# Compiled here, because the container's user may not write there.
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --quiet -r /wanted.txt \
 && /opt/venv/bin/pip uninstall --quiet --yes pip \
 && /opt/venv/bin/python -m compileall -q /opt/venv/lib

FROM python:3.14-slim
# A number, not a name: Kubernetes' runAsNonRoot cannot tell whether a name means root.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin course
COPY --from=installed /opt/venv /opt/venv
# The project is not installed: the scripts find `common` and `robust_pika` through PYTHONPATH. Output is not buffered, and
# nothing is written beside the scripts.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY . .
USER 10001:10001
CMD ["python", "-m", "tour", "--list"]
