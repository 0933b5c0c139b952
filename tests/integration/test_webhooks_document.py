"""What the guide says of webhooks: its ten lines and its handlers, run as they stand there; its table of presets."""

import re
import time
from pathlib import Path

import replayforge
from replayforge.domain.webhook_presets import PRESETS
from tests.support.daemon_process import DaemonProcess
from tests.support.providers import headers_of

DOCUMENT = (Path(replayforge.__file__).parent / "docs" / "webhooks.md").read_text(encoding="utf-8")
SECRETS = {"github": "It's a Secret", "stripe": "whsec_secret", "shopify": "shpss_secret"}
DELIVERIES = {
    "github": (b'{"ref": "refs/heads/main"}\n', "refs/heads/main"),
    "stripe": (b'{"id": "evt_1", "type": "charge.failed"}', "evt_1"),
    "shopify": (b'{"id": 1.10}', "shop.example.com"),
}


def block(language: str) -> str:
    """Return the first block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_ten_lines_take_in_three_providers(tmp_path: Path) -> None:
    """Signed as their providers sign, deliveries end in the handlers of the guide; its commands do what it says."""
    assert len([line for line in block("toml").splitlines() if line]) <= 10
    folder = tmp_path / "daemon"
    folder.mkdir()
    (folder / "replayforge.toml").write_text(block("toml"))
    (folder / "handlers.py").write_text(block("python"))
    (folder / "shopify_secret").write_text(SECRETS["shopify"] + "\n")
    (folder / "body.json").write_bytes(DELIVERIES["github"][0])
    variables = {"GITHUB_SECRET": SECRETS["github"], "STRIPE_SECRET": SECRETS["stripe"]}
    with DaemonProcess(folder, variables=variables) as daemon:
        daemon.start()
        for name, (body, result) in DELIVERIES.items():
            signed = headers_of(name, SECRETS[name], body, int(time.time()))
            headers = signed | {"Content-Type": "application/json", "X-Shopify-Shop-Domain": "shop.example.com"}
            answer = daemon.http.request("POST", f"/in/{name}", body, headers)
            assert answer.status == 200, answer.body
            event = daemon.http.reaches(answer.headers["replayforge-event-id"], "succeeded")
            assert event["result"] == result
        commands = [line.split()[1:] for line in block("sh").replace("'", "").splitlines()[1:]]
        trial = [*commands[0][:4], "-H", "X-GitHub-Event:push", "-H", "X-GitHub-Delivery:1"]
        assert daemon.run_command(*trial, "--url", daemon.url).out.startswith("Accepted: event ")
        assert "github" in daemon.run_command(*commands[1], "--url", daemon.url).out


def test_the_table_is_that_of_the_presets() -> None:
    """Types, keys and signature headers of the guide are those of the code."""
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", DOCUMENT, re.MULTILINE))
    assert rows.keys() == PRESETS.keys()
    for name, row in rows.items():
        preset = PRESETS[name]
        event_type, key, signed = row.split(" | ")
        assert re.findall(r"`(.*?)`", event_type) == list(preset.event_type)
        assert re.findall(r"`(.*?)`", key) == ([preset.key] if preset.key else [])
        headers = set(preset.signature_headers) - {"authorization"}
        assert headers == set(re.findall(r"`([a-z0-9-]+-[a-z0-9-]+)`", signed)) - {"sha256="}
