"""How to try a source from a shell: with curl and openssl, signed as its provider signs, with the secret in $SECRET."""

from replayforge.domain.webhook_presets import Preset, Scheme
from replayforge.domain.webhook_source import Source

HEXADECIMAL = "od -An -vtx1 | tr -d ' \\n'"
# Headers that name the event where the body does not.
NAMING = {
    "github": {"X-GitHub-Event": "ping", "X-GitHub-Delivery": "$(date +%s%N)"},
    "shopify": {"X-Shopify-Topic": "orders/create", "X-Shopify-Webhook-Id": "$(date +%s%N)"},
}


def curl_of(source: Source, url: str) -> str:
    """Return the commands that send the file body.json to a source; the secret is taken from $SECRET."""
    preset = source.preset
    if preset.scheme is Scheme.URL:
        return f"replayforge sources test {source.name} body.txt  # it signs its URL and the fields of a form"
    if preset.scheme is Scheme.PASSWORD:
        return command(url, ['-u "$SECRET"'])
    headers = {"Content-Type": "application/json", **NAMING.get(source.preset_name, {})}
    if preset.id_header:
        headers[preset.id_header] = "$ID"
    if preset.time_header:
        headers[preset.time_header] = "$AT"
    if preset.scheme is Scheme.BODY:
        time = f"{preset.time_prefix}$AT{preset.separator}" if preset.time_prefix else ""
        headers[preset.signature_headers[0]] = f"{time}{preset.prefixes[0]}$({signing(preset)})"
    before = "AT=$(date +%s); " if preset.signs_time else ""
    before += "ID=msg_$AT; " if preset.id_header else ""
    return before + command(url, [f'-H "{name}: {value}"' for name, value in headers.items()])


def command(url: str, options: list[str]) -> str:
    """Return a command of curl, an option a line."""
    return " \\\n  ".join([f"curl -i {url}", *options, "--data-binary @body.json"])


def signing(preset: Preset) -> str:
    """Return the commands that sign the file."""
    before = preset.before.replace("{time}", "$AT").replace("{id}", "$ID")
    signed = f'{{ printf %s "{before}"; cat body.json; }} | ' if before else "cat body.json | "
    key = '-hmac "$SECRET"'
    if preset.secret_prefix:
        secret = f'printf %s "${{SECRET#{preset.secret_prefix}}}" | base64 -d | {HEXADECIMAL}'
        key = f"-mac HMAC -macopt hexkey:$({secret})"
    written = "base64 -w0" if preset.encodings[0] == "base64" else HEXADECIMAL
    return f"{signed}openssl dgst -{preset.digest} {key} -binary | {written}"
