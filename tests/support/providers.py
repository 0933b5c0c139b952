"""Signs as providers document it, independently of the presets, so that a preset cannot agree only with itself."""

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl

SIGNED = ("github", "stripe", "shopify", "slack", "standard-webhooks", "twilio", "hmac", "basic")
WITH_TIME = ("stripe", "slack", "standard-webhooks")
SECRETS = {
    "standard-webhooks": ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
    "basic": ("shop:correct horse", "shop:battery staple"),
}


def secrets_of(preset: str) -> tuple[str, str]:
    """Return a new secret and an old one."""
    return SECRETS.get(preset, (f"the new secret of {preset}", f"the old secret of {preset}"))


def headers_of(
    preset: str, secret: str, body: bytes, at: int, *, url: str = "", delivery: str = "d1"
) -> dict[str, str]:
    """Return the headers with which a provider sends a body."""
    key = secret.encode()
    plain = hmac.new(key, body, hashlib.sha256)
    match preset:
        case "github":
            named = {"X-GitHub-Event": "push", "X-GitHub-Delivery": delivery, "X-GitHub-Hook-ID": "292430182"}
            return named | {"X-Hub-Signature-256": "sha256=" + plain.hexdigest()}
        case "stripe":
            v1 = hmac.new(key, str(at).encode() + b"." + body, hashlib.sha256).hexdigest()
            return {"Stripe-Signature": f"t={at},v1={'0' * 64},v1={v1},v0={'6' * 64}"}
        case "shopify":
            named = {
                "X-Shopify-Topic": "orders/create",
                "X-Shopify-Webhook-Id": delivery,
                "X-Shopify-Shop-Domain": "a.b",
            }
            return named | {"X-Shopify-Hmac-Sha256": base64.b64encode(plain.digest()).decode()}
        case "slack":
            v0 = hmac.new(key, f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
            return {"X-Slack-Request-Timestamp": str(at), "X-Slack-Signature": f"v0={v0}"}
        case "standard-webhooks":
            key = base64.b64decode(secret.removeprefix("whsec_"))
            v1 = base64.b64encode(hmac.new(key, f"{delivery}.{at}.".encode() + body, hashlib.sha256).digest()).decode()
            named = {"webhook-id": delivery, "webhook-timestamp": str(at)}
            return named | {"webhook-signature": f"v1,{'A' * 43}= v1,{v1} v1a,other"}
        case "twilio":
            pairs = sorted(parse_qsl(body.decode(), keep_blank_values=True))
            text = url + "".join(name + value for name, value in pairs)
            return {
                "X-Twilio-Signature": base64.b64encode(hmac.new(key, text.encode(), hashlib.sha1).digest()).decode()
            }
        case "hmac":
            return {"X-Webhook-Signature": plain.hexdigest(), "X-Delivery": delivery}
        case "basic":
            return {"Authorization": "Basic " + base64.b64encode(key).decode()}
    return {}
