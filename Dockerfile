# The course in a container: docker build -t rabbitmq-by-example:dev .
#
# What pip leaves behind stays in the earlier stages. What the scripts need comes before the scripts, so that a changed
# script rebuilds the last layer only, and that one is some hundred kilobytes.

# The requirements of all folders in one file. It only changes when one of them does: the next stage is then cached.
# Those of amqp_1_0 are left out, because they need a C compiler: without them, its scripts say what is missing.
FROM python:3.14-slim AS wanted
COPY . /src
RUN find /src -name requirements.txt ! -path '*/amqp_1_0/*' -exec cat {} + | grep -Ev '^(-|#|$)' | sort -u > /wanted.txt

FROM python:3.14-slim AS installed
RUN python -m venv /opt/venv
COPY --from=wanted /wanted.txt /
# Compiled once, here: the container's user may not write there.
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --quiet -r /wanted.txt \
 && /opt/venv/bin/pip uninstall --quiet --yes pip \
 && /opt/venv/bin/python -m compileall -q /opt/venv/lib

FROM python:3.14-slim
# A number, not a name: Kubernetes' runAsNonRoot cannot tell whether a name is root's.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin course
COPY --from=installed /opt/venv /opt/venv
# The project is not installed: PYTHONPATH is how the scripts find `common`. A line that is printed is to be seen at
# once, and nothing is written beside the scripts.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY . .
USER 10001:10001
CMD ["python", "-m", "tour", "--list"]
