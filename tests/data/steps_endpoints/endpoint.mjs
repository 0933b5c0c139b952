// An order in ten steps in plain Node, without an SDK; the journal that comes with each request says what is done.
import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import { act, decline, shaky } from "./outside.mjs";

class StepFailed extends Error {}

// This request goes no further; its answer says what it did, and what is to happen before the next one.
class Next extends Error {}

// One way through a workflow, past all that the journal holds.
class Flow {
  constructor(asked) {
    Object.assign(this, { asked, journal: asked.journal, payload: asked.event.payload });
  }

  // Do, side by side, what is not done; it is recorded when this returns.
  async steps(what, ...names) {
    const missing = names.filter((name) => !(name in this.journal));
    if (missing.length > 0) {
      const did = await Promise.all(missing.map((name) => this.tried(what, name)));
      if (did.some((one) => one.error)) throw new Next(JSON.stringify({ did, next: { again: {} } }));
      const body = JSON.stringify({ lease_token: this.asked.lease_token, did });
      const headers = { "Content-Type": "application/json" };
      const answer = await fetch(this.asked.checkpoint_url, { method: "POST", headers, body });
      if (!answer.ok) throw new Error(`the checkpoint was answered ${answer.status}`);
      for (const one of did) this.journal[one.step] = one;
    }
    return names.map((name) => this.answer(name));
  }

  tried(what, step) {
    return what(this.asked, step).then(
      (ok) => ({ step, ok }),
      ({ name, message, permanent }) => ({ step, error: { type: name, message, permanent } }),
    );
  }

  // Sleep, wait_for, send or call: nothing is held open meanwhile.
  wait(what, step, fields) {
    if (!(step in this.journal)) throw new Next(JSON.stringify({ next: { [what]: { step, ...fields } } }));
    return this.answer(step);
  }

  answer(name) {
    if (this.journal[name].error) throw new StepFailed(this.journal[name].error.message);
    return this.journal[name].ok;
  }
}

async function order(flow) {
  const did = [...(await flow.steps(act, "reserve")), ...(await flow.steps(act, "label-1", "label-2", "label-3"))];
  try {
    await flow.steps(decline, "charge");
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    did.push(error.message, ...(await flow.steps(act, "refund")));
  }
  flow.wait("sleep", "grace", { seconds: flow.payload.seconds });
  did.push(...(await flow.steps(act, "pack")));
  did.push(flow.wait("wait_for", "confirmed", { event_type: "confirmed", timeout_seconds: 86_400 }).payload);
  did.push(...(await flow.steps(act, "ship")), ...(await flow.steps(shaky, "archive")));
  flow.wait("send", "thanks", { event_type: "mail", payload: { template: "thanks" } });
  did.push(flow.wait("call", "invoice", { event_type: "bill", payload: flow.payload }));
  return [...did, ...(await flow.steps(act, "close"))];
}

async function bill(flow) {
  flow.wait("sleep", "paper", { seconds: flow.payload.seconds });
  return flow.steps(act, "print");
}

const mail = (flow) => flow.steps(act, "deliver");

createServer(async (request, response) => {
  try {
    const asked = await json(request);
    const result = await { order, bill, mail }[asked.event.event_type](new Flow(asked));
    response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(result));
  } catch (reason) {
    if (!(reason instanceof Next)) return response.writeHead(500).end(String(reason));
    response.writeHead(200, { "Content-Type": "application/vnd.replayforge.next+json" }).end(reason.message);
  }
}).listen(Number(process.argv[2]), "127.0.0.1");
