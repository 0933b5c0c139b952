// An order in ten steps in plain Node, without an SDK; the journal that comes with each request says what is done.
import { createServer } from "node:http";
import { act, decline, shaky } from "./outside.mjs";

// This request goes no further: what it did, and what is to happen before the next one.
class Next {
  constructor(did, next) {
    Object.assign(this, { did, next });
  }
}

class StepFailed extends Error {}

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
      if (did.some((one) => "error" in one)) throw new Next(did, { again: {} });
      const body = JSON.stringify({ lease_token: this.asked.lease_token, did });
      const headers = { "Content-Type": "application/json" };
      const answer = await fetch(this.asked.checkpoint_url, { method: "POST", headers, body });
      if (answer.status !== 204) throw new Error(`the checkpoint was answered ${answer.status}`);
      for (const one of did) this.journal[one.step] = one;
    }
    return names.map((name) => this.answer(name));
  }

  async tried(what, step) {
    try {
      return { step, ok: await what(this.asked, step) };
    } catch ({ name, message, permanent = false }) {
      return { step, error: { type: name, message, permanent } };
    }
  }

  // Sleep, wait_for, send or call: nothing is held open meanwhile.
  wait(what, step, fields) {
    if (!(step in this.journal)) throw new Next([], { [what]: { step, ...fields } });
    return this.answer(step);
  }

  answer(name) {
    if ("error" in this.journal[name]) throw new StepFailed(this.journal[name].error.message);
    return this.journal[name].ok;
  }
}

const workflows = {
  async order(flow) {
    const did = [...(await flow.steps(act, "reserve")), ...(await flow.steps(act, "label-1", "label-2", "label-3"))];
    try {
      await flow.steps(decline, "charge");
    } catch (error) {
      if (!(error instanceof StepFailed)) throw error;
      did.push(error.message, ...(await flow.steps(act, "refund")));
    }
    flow.wait("sleep", "grace", { seconds: flow.payload.seconds });
    did.push(...(await flow.steps(act, "pack")));
    const confirmed = flow.wait("wait_for", "confirmed", { event_type: "confirmed", timeout_seconds: 86_400 });
    did.push(confirmed.payload, ...(await flow.steps(act, "ship")), ...(await flow.steps(shaky, "archive")));
    flow.wait("send", "thanks", { event_type: "mail", payload: { template: "thanks" } });
    did.push(flow.wait("call", "invoice", { event_type: "bill", payload: flow.payload }));
    return [...did, ...(await flow.steps(act, "close"))];
  },
  async bill(flow) {
    flow.wait("sleep", "paper", { seconds: flow.payload.seconds });
    return flow.steps(act, "print");
  },
  mail: (flow) => flow.steps(act, "deliver"),
};

const server = createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  const say = (status, type, value) => response.writeHead(status, { "Content-Type": type }).end(JSON.stringify(value));
  try {
    const asked = JSON.parse(body);
    say(200, "application/json", await workflows[asked.event.event_type](new Flow(asked)));
  } catch (reason) {
    if (reason instanceof Next) say(200, "application/vnd.replayforge.next+json", reason);
    else say(500, "application/json", String(reason));
  }
});
server.listen(Number(process.argv[2]), "127.0.0.1");
