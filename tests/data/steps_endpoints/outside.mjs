// The world outside of an endpoint: a line for everything that was done to it. Arguments: port, file, seconds.
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";

const [, , , path, seconds] = process.argv;

// Have an effect, which takes its time.
export async function act(asked, name) {
  note(asked, name);
  await setTimeout(1000 * seconds);
  return `${name} done`;
}

export async function decline(asked, name) {
  await act(asked, name);
  throw Object.assign(new Error(`${name} is declined`), { permanent: true });
}

export async function shaky(asked, name) {
  if (note(asked, name) === 0) throw new Error("it fails at first");
  return `${name} done at last`;
}

// Note an effect with one write, and return how often it had happened before.
function note(asked, step) {
  const key = `${asked.journal_key}/${step}`;
  const earlier = existsSync(path) ? readFileSync(path, "utf8").split(key).length - 1 : 0;
  const line = { event: asked.event.id, step, key, token: asked.lease_token, url: asked.checkpoint_url };
  appendFileSync(path, JSON.stringify(line) + "\n");
  return earlier;
}
