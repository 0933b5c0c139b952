"""Certificates for hosts that are stood in for: an authority of one proof's own, which only its daemons trust."""

import shutil
import ssl
import subprocess
import threading
from pathlib import Path

OPENSSL_SECONDS_MAX = 20
DAYS = "2"
# What is told where the authority's certificate lies: Python and httpx, requests, curl, botocore, Node.
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", DAYS)


class Certificates:
    """Makes a certificate for each host, by the program openssl; without it there are none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program = shutil.which("openssl")
        self.making = threading.Lock()
        self.contexts: dict[str, ssl.SSLContext] = {}
        if self.program is not None:
            self.make("authority", "/CN=replayforge prove")
            known = ssl.get_default_verify_paths().cafile
            own = (directory / "authority.pem").read_text()
            self.bundle.write_text((Path(known).read_text() if known else "") + own)

    @property
    def bundle(self) -> Path:
        """The file with every authority that a proved daemon trusts."""
        return self.directory / "authorities.pem"

    def environment(self) -> dict[str, str]:
        """Return what tells libraries whom to trust."""
        return dict.fromkeys(VARIABLES, str(self.bundle)) if self.program is not None else {}

    def context(self, host: str) -> ssl.SSLContext | None:
        """Return what to speak TLS with in the name of a host, None where that cannot be."""
        if self.program is None:
            return None
        with self.making:
            if host not in self.contexts:
                self.contexts[host] = self.made(host)
            return self.contexts[host]

    def made(self, host: str) -> ssl.SSLContext:
        """Make a certificate for a host."""
        name = f"host-{len(self.contexts)}"
        kind = "IP" if host.replace(".", "").isdigit() or ":" in host else "DNS"
        authority = ("-CA", str(self.directory / "authority.pem"), "-CAkey", str(self.directory / "authority.key"))
        self.make(name, "/CN=replayforge prove host", *authority, "-addext", f"subjectAltName={kind}:{host}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return context

    def make(self, name: str, subject: str, *options: str) -> None:
        """Have openssl make a key and a certificate."""
        files = ("-keyout", str(self.directory / f"{name}.key"), "-out", str(self.directory / f"{name}.pem"))
        command = [str(self.program), "req", "-x509", *NEW_KEY, "-subj", subject, *files, *options]
        subprocess.run(command, check=True, capture_output=True, timeout=OPENSSL_SECONDS_MAX)  # noqa: S603
