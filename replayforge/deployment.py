"""Files with which others run the daemon: a systemd unit, a Dockerfile, a compose file, a Kubernetes manifest."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from replayforge.config import LoadedConfig
from replayforge.signals import ORDERED_SECONDS_MAX

STATE_NAME = "replayforge"
STATE_DIRECTORY = Path("/var/lib") / STATE_NAME
EMPTY_THERE = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - where PrivateTmp hides what everybody else sees
HOMES = (Path("/home"), Path("/root"))
MARGIN_SECONDS = 5
REFUSED = "64 78"  # wrong usage and refused starts: another start would be refused as well
KEY_VARIABLE = "REPLAYFORGE__SERVER__API_KEYS"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemon is run today: with this Python, in this directory, by these settings."""

    python: str
    directory: Path
    loaded: LoadedConfig
    version: str

    @property
    def stop_seconds(self) -> int:
        """How long an ordered end may take: the grace period, and all that comes after it."""
        return int(self.loaded.config.supervisor.grace_seconds + ORDERED_SECONDS_MAX) + MARGIN_SECONDS

    @property
    def port(self) -> int:
        """The port that it listens on, where a fixed one is needed."""
        return self.loaded.config.server.port or 8787

    def path(self, name: str) -> str:
        """Return the path of a health check."""
        return f"{self.loaded.config.server.base_path}/health/{name}"

    @property
    def host_name(self) -> str:
        """A host that the daemon answers to, "" where any will do."""
        return next(iter(self.loaded.config.server.allowed_hosts), "")

    @property
    def variables(self) -> list[str]:
        """The environment variables that settings come from."""
        words = (origin.removeprefix("environment ") for origin in self.loaded.origins.values())
        return sorted({word for word in words if word.isupper()})

    @property
    def state_is_default(self) -> bool:
        """Whether nobody has said where everything lies that must survive."""
        return self.loaded.origins["data_dir"] == "default"

    @property
    def written(self) -> list[Path]:
        """The directories outside of its state that the daemon writes into, which have to be there."""
        config = self.loaded.config
        named = {Path(config.log.dir), *([config.store.sqlite_path.parent] if config.store.sqlite_path else [])}
        outside = {one for one in named if not one.is_relative_to(config.data_dir)}
        return sorted(self.directory / one for one in outside | (set() if self.state_is_default else {config.data_dir}))


def doubts_about_unit(place: Place) -> list[str]:
    """Say in sentences what will keep a unit from doing what is wanted of it."""
    handlers, path = place.loaded.config.handlers, place.loaded.path
    doubts = []
    if not handlers.modules and not handlers.http:
        doubts.append(
            'This unit runs no handlers, since none are configured: put [handlers] modules = ["handlers.py"] into'
            " replayforge.toml."
        )
    parts = {"Python": Path(place.python), "the working directory": place.directory}
    parts |= {"the configuration": path.absolute()} if path else {}
    for name, one in parts.items():
        if any(map(one.is_relative_to, EMPTY_THERE)):
            doubts.append(f"{one}, {name}, cannot be seen by the unit, which has a /tmp of its own (PrivateTmp=yes).")
        elif any(map(one.is_relative_to, HOMES)):
            doubts.append(
                f"{one}, {name}, lies in a home, which is read-only for the unit (ProtectHome) and which its user may"
                " not be let into: /opt is a better place."
            )
    return doubts


def systemd_unit(place: Place) -> str:
    """Return a unit that runs the daemon as it is run here, as a user of its own and with its state in /var/lib."""
    config, loaded = place.loaded.config, place.loaded
    command = [place.python, "-m", "replayforge", "serve"]
    command += ["--config", str(loaded.path.absolute())] if loaded.path else []
    command += ["--data-dir", str(STATE_DIRECTORY)] if place.state_is_default else []
    writable = "".join(f"ReadWritePaths={one}\n" for one in place.written)
    made = "".join(f"# Then:   install -d -o {STATE_NAME} -g {STATE_NAME} -m 0700 {one}\n" for one in place.written)
    needed = f" They are set here now, and have to be there: {', '.join(place.variables)}." if place.variables else ""
    return f"""\
# /etc/systemd/system/replayforge.service
# First:  useradd --system --home-dir {STATE_DIRECTORY} --shell /usr/sbin/nologin {STATE_NAME}
{made}# Then:   systemctl daemon-reload && systemctl enable --now replayforge
# Keys and passwords belong into /etc/replayforge.env, mode 0600.{needed}
[Unit]
Description=ReplayForge
Documentation=http://{config.server.host}:{place.port}{config.server.base_path}/guide
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart={shlex.join(command).replace("%", "%%")}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={place.directory}
EnvironmentFile=-/etc/replayforge.env
User={STATE_NAME}
StateDirectory={STATE_NAME}
StateDirectoryMode=0700
{writable}UMask=0077
Restart=on-failure
RestartSec=1
RestartPreventExitStatus={REFUSED}
WatchdogSec=30
TimeoutStartSec=10min
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec={place.stop_seconds}
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


def dockerfile(place: Place) -> str:
    """Return a Dockerfile for the directory that has replayforge.toml and the handlers."""
    health = f"http://127.0.0.1:{place.port}{place.path('live')}"
    headers = json.dumps({"Host": place.host_name} if place.host_name else {})
    look = f"import urllib.request as r; r.urlopen(r.Request('{health}', headers={headers}), timeout=3)"
    return f"""\
# Build it in the directory of replayforge.toml and the handlers:  docker build -t replayforge .
# Keep .replayforge, .venv and files with secrets out of the image by a .dockerignore.
FROM python:3.11-slim
RUN useradd --system --uid 10001 replayforge && install -d -m 0700 -o replayforge /data
# What the handlers need stands in requirements.txt beside them.
RUN pip install --no-cache-dir "replayforge[fast]=={place.version}"
WORKDIR /app
COPY . /app/
RUN if [ -f requirements.txt ]; then pip install --no-cache-dir -r requirements.txt; fi
ENV REPLAYFORGE__DATA_DIR=/data \\
    REPLAYFORGE__SERVER__HOST=0.0.0.0 \\
    REPLAYFORGE__SERVER__PORT={place.port} \\
    REPLAYFORGE__LOGGING__FORMAT=json
VOLUME /data
EXPOSE {place.port}
USER replayforge
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", {json.dumps(look)}]
# Listening on 0.0.0.0 takes a key: hand over {KEY_VARIABLE}, and docker stop --time {place.stop_seconds}.
CMD ["replayforge", "serve"]
"""


def compose_file(place: Place, *, redis: bool, postgres: bool) -> str:
    """Return a compose file that builds the Dockerfile beside it, with Redis and PostgreSQL where they are wanted."""
    lines = ["services:", "  replayforge:", "    build: .", "    init: true", "    restart: on-failure"]
    lines += [
        f"    stop_grace_period: {place.stop_seconds}s",
        "    ports:",
        f'      - "127.0.0.1:{place.port}:{place.port}"',
    ]
    lines += ["    volumes:", "      - data:/data", "    environment:"]
    lines += [f"      {KEY_VARIABLE}: ${{REPLAYFORGE_KEY:?set REPLAYFORGE_KEY to a key of your own}}"]
    if redis:
        lines += ["      REPLAYFORGE__REDIS__URL: redis://redis:6379/0"]
    if postgres:
        password = "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}"  # noqa: S105 - where it comes from
        lines += [f"      REPLAYFORGE__STORE__URL: postgresql://replayforge:{password}@postgres/replayforge"]
    if redis or postgres:
        lines += ["    depends_on:"]
    for name, wanted in (("redis", redis), ("postgres", postgres)):
        lines += [f"      {name}:", "        condition: service_healthy"] if wanted else []
    if redis:
        lines += ["  redis:", "    image: redis:7", "    restart: on-failure"]
        lines += ['    command: ["redis-server", "--maxmemory-policy", "noeviction"]']
        lines += health_check("redis-cli", "ping")
    if postgres:
        lines += ["  postgres:", "    image: postgres:17", "    restart: on-failure", "    volumes:"]
        lines += ["      - postgres:/var/lib/postgresql/data", "    environment:", "      POSTGRES_USER: replayforge"]
        lines += [
            "      POSTGRES_DB: replayforge",
            "      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}",
        ]
        lines += health_check("pg_isready", "-U", "replayforge")
    lines += ["volumes:", "  data: {}", *(["  postgres: {}"] if postgres else [])]
    return "\n".join(lines) + "\n"


def health_check(*command: str) -> list[str]:
    """Return the lines by which compose sees whether a service is there."""
    return [
        "    healthcheck:",
        f"      test: {json.dumps(['CMD', *command])}",
        "      interval: 5s",
        "      retries: 10",
    ]


def kubernetes_manifest(place: Place) -> str:
    """Return a secret, a service and a stateful set of one pod, which keeps its log on a volume of its own."""
    headers = (
        f"\n            httpHeaders: [{{name: Host, value: {json.dumps(place.host_name)}}}]" if place.host_name else ""
    )

    def probe(name: str, path: str, seconds: int, failures: int) -> str:
        return f"""\
        {name}:
          httpGet:
            path: {place.path(path)}
            port: http{headers}
          periodSeconds: {seconds}
          timeoutSeconds: 5
          failureThreshold: {failures}
"""

    return f"""\
# Build the image with `replayforge deploy docker` and name it below. Each replica has a log of its own; more than one
# take one Redis and one PostgreSQL for all of them (redis.url, store.url).
apiVersion: v1
kind: Secret
metadata:
  name: replayforge
stringData:
  {KEY_VARIABLE}: "a key of your own"
---
apiVersion: v1
kind: Service
metadata:
  name: replayforge
spec:
  selector:
    app: replayforge
  ports:
    - name: http
      port: {place.port}
      targetPort: http
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: replayforge
spec:
  serviceName: replayforge
  replicas: 1
  selector:
    matchLabels:
      app: replayforge
  template:
    metadata:
      labels:
        app: replayforge
    spec:
      terminationGracePeriodSeconds: {place.stop_seconds}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        fsGroup: 10001
      containers:
      - name: replayforge
        image: replayforge:{place.version}
        ports:
        - name: http
          containerPort: {place.port}
        envFrom:
        - secretRef:
            name: replayforge
        volumeMounts:
        - name: data
          mountPath: /data
        securityContext:
          allowPrivilegeEscalation: false
          capabilities:
            drop: ["ALL"]
{probe("startupProbe", "live", 5, 120)}{probe("livenessProbe", "live", 10, 3)}{probe("readinessProbe", "ready", 5, 1)}\
  volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: ["ReadWriteOnce"]
      resources:
        requests:
          storage: 20Gi
"""
